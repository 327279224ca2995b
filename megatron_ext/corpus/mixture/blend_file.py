"""A plan as the ``data`` section of a run: a YAML file that the run names under ``defaults:``."""

import string
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import yaml

from megatron_ext.config.section_data import DatasetConfig
from megatron_ext.corpus.mixture.plan import Plan, PlannedStage
from megatron_ext.corpus.mixture.sets import CountedSets, Dataset, MixtureSet
from megatron_ext.corpus.mixture.summary import NO_TIER, amount
from megatron_ext.errors import CorpusError


def with_paths(counted: CountedSets, pattern: str) -> CountedSets:
    """Sets with the path at which their dataset is going to lie.

    Args:
        counted: sets; those that have datasets keep them.
        pattern: a prefix with ``{label}``, and ``{category}`` where there are several.

    Raises:
        CorpusError: the pattern holds other names, or gives two sets the same path.
    """
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None}
    except ValueError as error:
        raise CorpusError(f"--path {pattern}: {error}") from error
    if not fields <= {"label", "category"}:
        raise CorpusError(f"--path {pattern}: knows {{label}} and {{category}} only")
    sets = [
        one
        if one.datasets
        else replace(
            one, datasets=(Dataset(pattern.format(label=one.label, category=one.category), one.tokens),)
        )
        for one in counted.sets
    ]
    if len({dataset.prefix for one in sets for dataset in one.datasets}) < sum(
        len(one.datasets) for one in sets
    ):
        raise CorpusError(
            f"--path {pattern}: gives two sets the same path; it needs {{label}} and perhaps {{category}}"
        )
    return replace(counted, sets=tuple(sets))


def can_be_read(plan: Plan) -> bool:
    """Whether every set that the plan reads has a path."""
    return all(one.datasets for one, tokens in zip(plan.sets, plan.tokens, strict=True) if tokens > 0)


def as_yaml(plan: Plan) -> str:
    """The file."""
    first, *later = plan.stages
    lines = [
        f"# {amount(int(plan.tokens.sum()))} tokens of {int((plan.tokens > 0).sum())} sets, in {plan.samples:,} "
        f"samples of {plan.budget.seq_length:,}: written by tools/plan_mixture.py.",
        "# A run names this file under `defaults:`, or launch.sh is given it after the run's file.",
        "# Paths are relative to the folder in which launch.sh is run.",
        "data:",
        "  train:",
        *_entries(plan, first, "    "),
    ]
    lines += ["  stages:"] if later else []
    for stage in later:
        lines += [
            f"    - from_samples: {stage.from_samples}  # {_comment(stage.name)}",
            "      train:",
            *_entries(plan, stage, "        "),
        ]
    held_out = [
        _line({"path": path, "groups": groups_of(one, tier)}, "    ")
        for one, tier in zip(plan.sets, _tiers(plan), strict=True)
        for path in one.valid
    ]
    lines += ["  valid:", *held_out] if held_out else []
    return "\n".join(lines) + "\n"


def training_entries(plan: Plan, stage: PlannedStage) -> Iterator[tuple[DatasetConfig, int]]:
    """What ``data.train`` says in a stage, and the tokens that the entry's dataset holds."""
    for one, tier, read in zip(plan.sets, _tiers(plan), stage.tokens.tolist(), strict=True):
        if read > 0:
            held = sum(dataset.tokens for dataset in one.datasets)
            for dataset in one.datasets:
                tokens = float(read) * dataset.tokens / held
                yield (
                    DatasetConfig(path=dataset.prefix, tokens=tokens, groups=groups_of(one, tier)),
                    dataset.tokens,
                )


def groups_of(one: MixtureSet, tier: str | None) -> dict[str, str]:
    """What metrics count a set under."""
    found = {"label": one.label, "tier": tier, "category": one.category}
    return {dimension: value for dimension, value in found.items() if value is not None}


def _tiers(plan: Plan) -> list[str | None]:
    """Tiers by the names that metrics have for them; what is below the last one is scored, too."""
    nameless = None if plan.config.tiers is None else NO_TIER
    return [tier or nameless for tier in plan.tiers]


def _entries(plan: Plan, stage: PlannedStage, indent: str) -> list[str]:
    entries = [entry.model_dump(exclude_unset=True) for entry, _ in training_entries(plan, stage)]
    return [_line({**entry, "tokens": _number(entry["tokens"])}, indent) for entry in entries]


def _line(entry: Mapping[str, Any], indent: str) -> str:
    flow = yaml.safe_dump(
        dict(entry), default_flow_style=True, sort_keys=False, width=2**30, allow_unicode=True
    )
    return f"{indent}- {flow.strip()}"


def _number(value: float) -> float | int:
    return int(value) if value.is_integer() else value


def _comment(text: str) -> str:
    return " ".join(text.split())
