"""Categories with a share of their own, and labels with a fixed amount: who divides which tokens with whom."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megatron_ext.corpus.mixture.config import CategoryShare, MixtureRules, Override
from megatron_ext.corpus.mixture.names import unknown
from megatron_ext.corpus.mixture.rules.choice import RuleChoice
from megatron_ext.corpus.mixture.sets import MixtureSet
from megatron_ext.errors import CorpusError

ROUNDING = 1e-6  # by which shares that are meant to add up to 1 may fail to


@dataclass(frozen=True)
class SharedPool:
    """Sets that divide tokens among themselves.

    Attributes:
        name: of the category; empty: all sets.
        sets: int64, positions in the corpus.
        share: of the stage's tokens.
        rule: that divides them.
    """

    name: str
    sets: NDArray[np.int64]
    share: float
    rule: RuleChoice


def pools_of(sets: Sequence[MixtureSet], rules: MixtureRules) -> list[SharedPool]:
    """The pools of a stage, each with a share above 0.

    Raises:
        CorpusError: categories of the mixture and of the corpus are not the same, or shares do not add up.
    """
    if not rules.categories:
        return [SharedPool("", np.arange(len(sets)), 1.0, rules.rule)]
    there = Counter(one.category for one in sets)
    problems = [unknown("categories", name, list(there)) for name in rules.categories if name not in there]
    problems += [
        f"categories: {name} is in the corpus ({count} sets) and has no entry; give it a share, 0 leaves it out"
        for name, count in there.items()
        if name not in rules.categories
    ]
    if problems:
        raise CorpusError("\n".join(problems))
    categories = np.array([one.category for one in sets])
    return [
        SharedPool(name, np.flatnonzero(categories == name), share, rules.categories[name].rule or rules.rule)
        for name, share in _shares(rules.categories).items()
        if share > 0
    ]


def _shares(categories: Mapping[str, CategoryShare]) -> dict[str, float]:
    """Each category's share; the one without gets what is left."""
    given = {name: one.share for name, one in categories.items() if one.share is not None}
    total = sum(given.values())
    without = [name for name in categories if name not in given]
    if len(without) > 1:
        raise CorpusError(
            f"categories: {' and '.join(without)} have no share; only one category can have what is left"
        )
    if total > 1 + ROUNDING or (without and total >= 1):
        raise CorpusError(
            f"categories: shares add up to {total:.4%}; nothing is left for {without or 'more'}"
        )
    if not without and total < 1 - ROUNDING:
        raise CorpusError(
            f"categories: shares add up to {total:.4%}; leave one out, and its category has what is left"
        )
    left = dict.fromkeys(without, 1.0 - total)
    return {name: given.get(name, left.get(name, 0.0)) for name in categories}


def overrides_of(sets: Sequence[MixtureSet], overrides: Mapping[str, Override]) -> dict[int, Override]:
    """Overrides by the set's position in the corpus.

    Raises:
        CorpusError: a label is not in the corpus, in several categories, or named twice.
    """
    positions: dict[str, list[int]] = {}
    for index, one in enumerate(sets):
        positions.setdefault(one.label, []).append(index)
        positions.setdefault(one.name, []).append(index)
    found: dict[int, Override] = {}
    problems = []
    for name, override in overrides.items():
        key = f"overrides.{name}"
        match positions.get(name, []):
            case []:
                problems.append(unknown(key, name, list(positions)))
            case [index] if index in found:
                problems.append(f"{key}: {sets[index].name} has another override; keep one of them")
            case [index]:
                found[index] = override
            case several:
                names = ", ".join(sets[index].name for index in several)
                problems.append(f"{key}: is in several categories; write one of {names}")
    if problems:
        raise CorpusError("\n".join(problems))
    return found
