"""From the ``data`` section of a run to what it trains on and what it validates on."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megatron_ext.config.section_data import DataConfig
from megatron_ext.data.blend import BlendedDataset, ValidationDataset
from megatron_ext.data.compatibility import check_not_empty, check_together, document_rules
from megatron_ext.data.indexed import TokenizerIdentity
from megatron_ext.data.plan import describe_training, describe_validation
from megatron_ext.data.samples import TokenSet
from megatron_ext.data.sets import Entry, SetOpener, part_of_split, sets_of
from megatron_ext.data.split import split_shares
from megatron_ext.data.stages import Stage
from megatron_ext.data.weights import Mix, mix_of
from megatron_ext.errors import DataError
from megatron_ext.utils.console import get_logger

logger = get_logger(__name__)


@dataclass(frozen=True)
class Datasets:
    """What a run reads.

    Attributes:
        train: the blend.
        valid: the held-out windows, None where none are asked for.
        tokenizer: what made the ids, None where no set says; sets that disagree are refused.
    """

    train: BlendedDataset
    valid: ValidationDataset | None
    tokenizer: TokenizerIdentity | None


def build_datasets(
    config: DataConfig, *, seq_length: int, seed: int, train_samples: int, eod_id: int | None
) -> Datasets:
    """Open every set, check that they belong together, work out the blend and log it as a plan.

    Args:
        config: the ``data`` section.
        seq_length: tokens of a sample.
        seed: of the samples' order.
        train_samples: samples that the whole run reads.
        eod_id: the id that ends a document; needed by ``eod_mask_loss`` and the two ``reset_`` options.

    Raises:
        DataError: a path names nothing, a set is empty or damaged, sets do not fit each other or the options.
    """
    opener = SetOpener()
    lists = _open_training_lists(config, opener)
    valid = _held_out(config, _union(lists), opener)
    lists = {key: [entry.part(config.split, 0) for entry in entries] for key, entries in lists.items()}
    train_sets = _union(lists)
    check_not_empty(train_sets)
    rules = document_rules(config, eod_id)
    tokenizer = check_together(train_sets + valid, rules)

    alphas = [config.blend_alpha, *(stage.blend_alpha or config.blend_alpha for stage in config.stages)]
    mixes = [
        mix_of(key, entries, alpha=alpha, seq_length=seq_length, order=config.order)
        for alpha, (key, entries) in zip(alphas, lists.items(), strict=True)
    ]
    weights = [_over_all(train_sets, mix) for mix in mixes]
    blended = BlendedDataset(
        train_sets,
        weights[0],
        order=config.order,
        seq_length=seq_length,
        seed=seed,
        train_samples=train_samples,
        rules=rules,
        later_stages=[
            Stage(stage.start(train_samples), later)
            for stage, later in zip(config.stages, weights[1:], strict=True)
        ],
    )
    num_tokens = np.array([tokens.num_tokens for tokens in train_sets], dtype=np.int64)
    asked = {mix.key: mix.samples for mix in mixes}
    dtype = str(train_sets[0].dataset.dtype)
    for line in describe_training(blended, num_tokens, dtype, train_samples, asked):
        logger.info(line)
    validation = ValidationDataset(valid, seq_length=seq_length, rules=rules) if valid else None
    if validation is not None:
        logger.info(describe_validation(validation))
    return Datasets(blended, validation, tokenizer)


def _open_training_lists(config: DataConfig, opener: SetOpener) -> dict[str, list[Entry]]:
    """Entries of ``data.train`` and of each stage, by key, less those that ask for nothing."""
    lists = {"data.train": config.train}
    lists |= {f"data.stages[{index}].train": stage.train for index, stage in enumerate(config.stages)}
    opened = opener.open(lists)
    return {key: _dropped_zero_amounts(key, entries) for key, entries in opened.items()}


def _dropped_zero_amounts(key: str, entries: list[Entry]) -> list[Entry]:
    dropped = [entry for entry in entries if 0 in entry.config.amounts.values()]
    for entry in dropped:
        unit = next(iter(entry.config.amounts))
        if len(dropped) == len(entries):
            raise DataError(f"{key}: every {unit} is 0; give at least one set a share")
        logger.info("%s: %s has %s 0 and is not read", entry.key, entry.config.path, unit)
    return [entry for entry in entries if entry not in dropped]


def _held_out(config: DataConfig, train: Sequence[TokenSet], opener: SetOpener) -> list[TokenSet]:
    """Sets with text to validate on; a few of many may be too small to hold any out."""
    if config.split is not None and config.valid:
        raise DataError("data.split and data.valid both hold text out; give one of them")
    for index, entry in enumerate(config.valid):
        for unit in entry.amounts:
            raise DataError(f"data.valid[{index}].{unit}: validation reads all held-out text once; remove it")
    if config.split is not None:
        asked = split_shares(config.split)[1] > 0
        sets = [part_of_split(tokens, config.split, 1) for tokens in train]
    else:
        asked = bool(config.valid)
        sets = sets_of(opener.open({"data.valid": config.valid})["data.valid"])
    sets = [tokens for tokens in sets if tokens.num_tokens > 1]  # a single token has no label
    if asked and not sets:
        key = "data.valid" if config.valid else f"data.split={config.split}"
        raise DataError(f"{key}: there is no text to validate on; every part is shorter than 2 tokens")
    return sets


def _union(lists: Mapping[str, list[Entry]]) -> list[TokenSet]:
    """Every set once, in the order of its first mention, with the groups that any mention gives it.

    Raises:
        DataError: two mentions give it different ones.
    """
    found: dict[str, TokenSet] = {}
    for entry in itertools.chain.from_iterable(lists.values()):
        for tokens in entry.sets:
            known = found.setdefault(tokens.name, tokens)
            if not known.groups:
                found[tokens.name] = tokens
            elif tokens.groups and tokens.groups != known.groups:
                raise DataError(
                    f"{entry.key}.groups: {tokens.name} has {dict(tokens.groups)} here and {dict(known.groups)} in "
                    "an earlier list; a set has the same groups in all stages"
                )
    return list(found.values())


def _over_all(sets: Sequence[TokenSet], mix: Mix) -> NDArray[np.float64]:
    """Weights of a mix over all sets of the run, 0 for those that are not in it."""
    weights = {tokens.name: weight for tokens, weight in zip(mix.sets, mix.weights, strict=True)}
    return np.array([weights.get(tokens.name, 0.0) for tokens in sets])
