"""Corpora of sets without text: the official token table where it is, and one of the same shape everywhere."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from megatron_ext.corpus.mixture.config import MixtureConfig
from megatron_ext.corpus.mixture.plan import Budget, Plan, make_plan
from megatron_ext.corpus.mixture.sets import CountedSets, MixtureSet
from megatron_ext.corpus.mixture.table import Columns, read_table

ROOT = Path(__file__).parents[4]
RECIPES = ROOT / "configs/recipes/emma500"
BESIDE = [parent / "shared/data/mala/mala-monolingual.csv" for parent in ROOT.parents]
OFFICIAL = next((path for path in BESIDE if path.exists()), BESIDE[0])
# The official table's: labels and tokens of each tier, and of the labels below the last one.
SHAPE = ((27, 1e9, 3e9), (79, 1e8, 1e9), (68, 1e7, 1e8), (162, 1e6, 1e7), (210, 1e5, 1e6), (393, 10, 1e5))


def counted(tokens: Sequence[int], category: str = "mono", prefix: str = "l") -> CountedSets:
    sets = (MixtureSet(category, f"{prefix}{i}", n, n) for i, n in enumerate(tokens))
    return CountedSets(tuple(sets), "tokens")


def generated() -> CountedSets:
    """939 sets, log-uniform in each tier; the largest is English."""
    random = np.random.default_rng(0)
    tokens = [int(n) for count, least, most in SHAPE for n in np.geomspace(least, most * 0.999, count)]
    random.shuffle(tokens)
    sets = list(counted(tokens).sets)
    largest = tokens.index(max(tokens))
    sets[largest] = replace(sets[largest], label="eng_Latn")
    return CountedSets(tuple(sets), "tokens")


def tables() -> dict[str, CountedSets]:
    found = {"generated": generated()}
    if OFFICIAL.exists():
        found["official"] = read_table(OFFICIAL, Columns())
    return found


def planned(sets: CountedSets, tokens: float | None = None, seq_length: int = 1, **rules: object) -> Plan:
    config = MixtureConfig.model_validate(rules)
    return make_plan(sets, config, Budget(tokens, seq_length))


def both(first: CountedSets, second: CountedSets) -> CountedSets:
    return CountedSets(first.sets + second.sets, first.unit)
