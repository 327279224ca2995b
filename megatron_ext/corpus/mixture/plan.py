"""The plan of a run: for every set, how many tokens of it each stage reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from megatron_ext.corpus.mixture.allocate import LEAST_TOKENS, Allocator
from megatron_ext.corpus.mixture.config import MixtureConfig, MixtureRules, StageMixture, TiersConfig
from megatron_ext.corpus.mixture.rules.choice import RuleChoice
from megatron_ext.corpus.mixture.sets import CountedSets, MixtureSet
from megatron_ext.data.weights import trained_per_sample
from megatron_ext.errors import CorpusError


@dataclass(frozen=True)
class Budget:
    """How much a run reads.

    Attributes:
        tokens: altogether; None: what the rules ask for by themselves.
        seq_length: tokens of a sample.
        step_samples: samples of a training step, where they are known.
    """

    tokens: float | None
    seq_length: int
    step_samples: int | None = None


@dataclass(frozen=True)
class PlannedStage:
    """What a stage reads.

    Attributes:
        name: empty where the plan has one stage.
        from_samples: samples before it.
        samples: of it.
        tokens: int64 [sets].
    """

    name: str
    from_samples: int
    samples: int
    tokens: NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """What a run reads.

    Attributes:
        counted: the corpus.
        tiers: of each set; None: below the last one, or the mixture has none.
        stages: by their start, the first at 0.
        budget: of the run, with its tokens.
        config: the mixture.
        notes: what a person should know, one line each.
    """

    counted: CountedSets
    tiers: tuple[str | None, ...]
    stages: tuple[PlannedStage, ...]
    budget: Budget
    config: MixtureConfig
    notes: tuple[str, ...]

    @property
    def sets(self) -> tuple[MixtureSet, ...]:
        """The sets of the corpus."""
        return self.counted.sets

    @property
    def available(self) -> NDArray[np.int64]:
        """Tokens that there are, int64 [sets]."""
        return np.array([one.tokens for one in self.sets], dtype=np.int64)

    @property
    def tokens(self) -> NDArray[np.int64]:
        """Tokens to read, int64 [sets]."""
        return np.asarray(sum(stage.tokens for stage in self.stages), dtype=np.int64)

    @property
    def epochs(self) -> NDArray[np.float64]:
        """How often each set is read, float64 [sets]."""
        return np.asarray(self.tokens / np.maximum(self.available, 1), dtype=np.float64)

    @property
    def samples(self) -> int:
        """Samples of the run."""
        return sum(stage.samples for stage in self.stages)

    @property
    def expected_samples(self) -> NDArray[np.float64]:
        """Samples of each set that the run draws, before rounding, float64 [sets].

        The last window of an epoch is padded, so a small set's samples train fewer tokens.
        """
        trained = np.array(
            [
                trained_per_sample(max(one.tokens, LEAST_TOKENS), self.budget.seq_length, "permuted")
                for one in self.sets
            ]
        )
        samples = np.zeros(len(self.sets))
        for stage in self.stages:
            asked = stage.tokens / trained
            samples += stage.samples * asked / asked.sum()
        return samples

    def unread(self) -> dict[str, list[int]]:
        """Positions of the sets that are never seen, by the reason."""
        reasons: dict[str, list[int]] = {}
        for index, (one, samples) in enumerate(zip(self.sets, self.expected_samples, strict=True)):
            if samples >= 1:
                continue
            if samples > 0:
                reason = "less than one sample"
            elif one.tokens < LEAST_TOKENS:
                reason = "no text"
            elif self.config.tiers is not None and self.tiers[index] is None:
                reason = "below the last tier"
            else:
                reason = "left out by the mixture"
            reasons.setdefault(reason, []).append(index)
        return reasons


def make_plan(counted: CountedSets, config: MixtureConfig, budget: Budget) -> Plan:
    """Divide a run's tokens by the rules of each stage.

    Raises:
        CorpusError: rules name what the corpus does not have, or ask for what cannot be read.
    """
    sets = counted.sets
    tiers = tuple(tier_of(one, config.tiers) for one in sets)
    stages: list[StageMixture | None] = list(config.stages) or [None]
    rules = [config if stage is None else stage.over(config) for stage in stages]
    problems = [problem for one in rules for problem in _rule_problems(one, sets, config.tiers)]
    if problems:
        raise CorpusError("\n".join(dict.fromkeys(problems)))
    allocators = [Allocator(sets, tiers, config.tiers is not None, one) for one in rules]
    if budget.tokens is None and len(stages) > 1:
        raise CorpusError("budget: a mixture with stages needs one: tokens, steps of a batch, or a run's")
    total = allocators[0].natural_budget() if budget.tokens is None else budget.tokens
    budget = Budget(total, budget.seq_length, budget.step_samples)
    starts = _starts(stages, total, budget.seq_length)
    planned: list[PlannedStage] = []
    notes: list[str] = []
    read = np.zeros(len(sets))
    for stage, allocator, (start, end) in zip(stages, allocators, pairwise(starts), strict=True):
        name = "" if stage is None else stage.name
        tokens = total - start * budget.seq_length if end == starts[-1] else (end - start) * budget.seq_length
        try:
            allocation = allocator.allocate(float(tokens), read)
        except CorpusError as error:
            raise CorpusError(f"stage {name}: {error}" if name else str(error)) from error
        notes += [f"stage {name}: {note}" if name else note for note in allocation.notes]
        read += allocation.tokens
        planned.append(PlannedStage(name, start, end - start, whole(allocation.tokens)))
    return Plan(counted, tiers, tuple(planned), budget, config, tuple(notes))


def tier_of(one: MixtureSet, tiers: TiersConfig | None) -> str | None:
    """The tier of a set.

    Raises:
        CorpusError: tiers are told by whitespace tokens, which were not counted.
    """
    if tiers is None:
        return None
    if tiers.unit == "tokens":
        return tiers.tier(one.tokens)
    if one.whitespace_tokens is None:
        raise CorpusError(
            f"tiers.unit: whitespace tokens of {one.name} were not counted; plan from corpus.json, or give "
            "thresholds in tokens (unit: tokens)"
        )
    return tiers.tier(one.whitespace_tokens)


def whole(tokens: NDArray[np.float64]) -> NDArray[np.int64]:
    """Whole tokens that add up to what the amounts add up to: those with the largest remainders are rounded up."""
    lower = np.floor(tokens).astype(np.int64)
    missing = round(float((tokens - lower).sum()))
    lower[np.argsort(lower - tokens, kind="stable")[:missing]] += 1
    return lower


def _starts(stages: Sequence[StageMixture | None], total: float, seq_length: int) -> list[int]:
    """Samples before each stage, and those of the run."""
    samples = round(total / seq_length)
    starts = [0 if one is None else round(one.start(total) / seq_length) for one in stages]
    for index, (start, end) in enumerate(zip(starts, [*starts[1:], samples], strict=True)):
        if start >= end:
            stage = stages[index]
            called = "the run" if stage is None else f"stage {stage.name}"
            raise CorpusError(
                f"{called}: would read no sample of {seq_length:,} tokens: it goes from sample {start:,} to {end:,}"
            )
    return [*starts, samples]


def _rule_problems(rules: MixtureRules, sets: Sequence[MixtureSet], tiers: TiersConfig | None) -> list[str]:
    labels = list(dict.fromkeys(one.label for one in sets))
    tier_names = [] if tiers is None else list(tiers.thresholds)
    choices: dict[str, RuleChoice] = {"rule": rules.rule}
    choices |= {f"categories.{name}.rule": one.rule for name, one in rules.categories.items() if one.rule}
    return [
        f"{key}.{choice.name}.{problem}"
        for key, choice in choices.items()
        for problem in choice.chosen.problems(labels, tier_names)
    ]
