"""How much is read of each set: from what the entries of a list ask for to shares of the samples.

A blend deals out samples, so its shares are of samples. An amount of tokens becomes one of samples by what a
sample of the set trains on average: ``seq_length`` labels in ``megatron`` order, whose samples run on over
epochs; in ``permuted`` order, where the last window of an epoch is padded, ``tokens - 1`` labels over the
epoch's ``ceil((tokens - 1) / seq_length)`` windows. So with ``T`` tokens in a set and ``S`` windows an epoch,

    samples = tokens asked for × S / (T - 1)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megatron_ext.data.samples import TokenSet
from megatron_ext.data.sets import Entry, sets_of
from megatron_ext.errors import DataError


@dataclass(frozen=True)
class Mix:
    """What a list of entries asks for.

    Attributes:
        key: of the list, such as ``data.train``.
        sets: of all entries.
        weights: float64 [sets], in proportion to the samples of each.
        samples: how many are asked for altogether, None where only proportions are.
    """

    key: str
    sets: list[TokenSet]
    weights: NDArray[np.float64]
    samples: float | None


def mix_of(key: str, entries: Sequence[Entry], *, alpha: float, seq_length: int, order: str) -> Mix:
    """Weigh the sets of a list; what an entry gets is spread over its sets by size.

    Args:
        key: of the list, for errors.
        entries: of the list; none has an amount of 0.
        alpha: sizes count to this power.
        seq_length: tokens of a sample.
        order: ``permuted`` or ``megatron``.

    Raises:
        DataError: entries have amounts of different kinds, or only some have one.
    """
    sets = sets_of(entries)
    unit = _common_unit(key, entries)
    if unit is None:
        return Mix(key, sets, by_size(sets, alpha), None)
    asked = np.array([entry.config.amounts[unit] for entry in entries])
    if unit == "weight":
        asked = asked / asked.sum()
    amounts = [amount * by_size(entry.sets, alpha) for amount, entry in zip(asked, entries, strict=True)]
    weights = np.concatenate(amounts)
    if unit == "tokens":
        weights = weights / [trained_per_sample(tokens.num_tokens, seq_length, order) for tokens in sets]
    return Mix(key, sets, weights, None if unit == "weight" else float(weights.sum()))


def by_size(sets: Sequence[TokenSet], alpha: float) -> NDArray[np.float64]:
    """Shares in proportion to tokens^alpha, float64 [sets]."""
    sizes = np.array([tokens.num_tokens for tokens in sets], dtype=np.float64)
    if alpha != 1:
        # Processors disagree on the last bit of a power, and a bit decides a tie between two sets: rounded,
        # every node of a run and every machine that continues it draws the same.
        sizes = (sizes**alpha).astype(np.float32).astype(np.float64)
    return np.asarray(sizes / sizes.sum(), dtype=np.float64)


def trained_per_sample(num_tokens: int, seq_length: int, order: str) -> float:
    """Labels that a sample of a set of ``num_tokens`` has on average; see the top of this file."""
    if order == "megatron":
        return float(seq_length)
    labels = num_tokens - 1
    return labels / -(-labels // seq_length)


def _common_unit(key: str, entries: Sequence[Entry]) -> str | None:
    units = {unit: entry.key for entry in entries for unit in entry.config.amounts}
    if len(units) > 1:
        raise DataError(f"{key}: has both {' and '.join(units)}; use one of them for the whole list")
    unit = next(iter(units), None)
    missing = [entry.key for entry in entries if not entry.config.amounts]
    if unit is not None and missing:
        raise DataError(
            f"{missing[0]}: has no {unit}, but other entries of {key} do; give one to all or none"
        )
    return unit
