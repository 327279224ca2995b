"""One stage: its tokens divided among the sets, by the rules in the order that ``config.py`` tells."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megatron_ext.corpus.mixture.config import MixtureRules
from megatron_ext.corpus.mixture.fill import fill
from megatron_ext.corpus.mixture.pools import SharedPool, overrides_of, pools_of
from megatron_ext.corpus.mixture.rules.base import Pool
from megatron_ext.corpus.mixture.sets import MixtureSet
from megatron_ext.errors import CorpusError

LEAST_TOKENS = 2  # a single token has nothing to predict
EXACT = 1e-9  # relative; what is closer is rounding


@dataclass(frozen=True)
class Allocation:
    """What a stage reads.

    Attributes:
        tokens: float64 [sets].
        notes: what a person should know, one line each.
    """

    tokens: NDArray[np.float64]
    notes: list[str]


@dataclass(frozen=True)
class _Stage:
    """What is the same for all pools: tokens of the stage, those read before it of each set, and its notes."""

    budget: float
    before: NDArray[np.float64]
    notes: list[str]


class Allocator:
    """Divides the tokens of a stage.

    Args:
        sets: of the corpus.
        tiers: of each set; None: not trained, unless an override says so.
        has_tiers: False: ``tiers`` says nothing, and all sets are trained.
        rules: of the stage, complete.

    Raises:
        CorpusError: a name is not known, or categories do not fit the corpus.
    """

    def __init__(
        self, sets: Sequence[MixtureSet], tiers: Sequence[str | None], has_tiers: bool, rules: MixtureRules
    ) -> None:
        self.sets, self.tiers, self.rules = sets, tiers, rules
        self.available = np.array([one.tokens for one in sets], dtype=np.float64)
        self.pools = pools_of(sets, rules)
        self.overrides = overrides_of(sets, rules.overrides)
        enough = self.available >= LEAST_TOKENS
        in_tier = np.array([not has_tiers or tier is not None for tier in tiers], dtype=bool)
        self.ruled = enough & in_tier
        self.ruled[list(self.overrides)] = False

    def natural_budget(self) -> float:
        """Tokens that the rules ask for by themselves."""
        return float(sum(self._wanted(pool, self._ruled(pool), None).sum() for pool in self.pools))

    def allocate(self, budget: float, before: NDArray[np.float64]) -> Allocation:
        """Divide ``budget`` tokens.

        Args:
            budget: tokens of the stage.
            before: float64 [sets], tokens read in earlier stages, which count for ``max_epochs``.

        Raises:
            CorpusError: it cannot be done; says how many tokens can.
        """
        tokens = np.zeros(len(self.sets))
        for index, override in self.overrides.items():
            tokens[index] = override.of(self.available[index], budget)
            if tokens[index] > 0 and self.available[index] < LEAST_TOKENS:
                raise CorpusError(
                    f"overrides: {self.sets[index].name} holds {self.sets[index].tokens} tokens; nothing can be read"
                )
        stage = _Stage(budget, before, [])
        for pool in self.pools:
            fixed = tokens[pool.sets].sum()
            rest = pool.share * budget - fixed
            ruled = self._ruled(pool)
            if rest < -EXACT * budget or (not len(ruled) and rest > EXACT * budget):
                raise CorpusError(
                    f"{_called(pool)}: overrides read {fixed:,.0f} tokens of {pool.share * budget:,.0f}; "
                    + ("lower them" if rest < 0 else "no other set is there to read the rest")
                )
            if len(ruled) and rest > EXACT * budget:
                tokens[ruled] = self._divide(pool, ruled, rest, stage)
        unread = tokens[[i for i in self.overrides if not self._in_pools(i)]]
        if unread.any():
            raise CorpusError("overrides: a label of a category with share 0 cannot be read; give it a share")
        return Allocation(tokens, stage.notes)

    def _divide(
        self, pool: SharedPool, ruled: NDArray[np.int64], rest: float, stage: _Stage
    ) -> NDArray[np.float64]:
        """``rest`` tokens of a pool among its sets without an override, float64 [ruled]."""
        called = f"{_called(pool)}: {rest:,.0f} tokens are to be read"
        wanted = self._wanted(pool, ruled, rest)
        if not wanted.any():
            raise CorpusError(f"{called}, and the rule {pool.rule.name} reads no set of it")
        if wanted.sum() < rest * (1 - EXACT):
            stage.notes.append(
                f"{called}, and {pool.rule.name} allows {wanted.sum():,.0f}; all sets are read more in proportion"
            )
        read = wanted > 0
        low, high = self._bounds(pool, ruled[read], stage)
        if rest > high.sum() * (1 + EXACT):
            raise CorpusError(
                f"{called}, and max_epochs allows {high.sum():,.0f}; raise it, or lower the budget or the share"
            )
        if low.sum() > rest * (1 + EXACT):
            raise CorpusError(
                f"{called}, and min_share asks {low.sum():,.0f} for its {read.sum()} sets; lower it"
            )
        amounts = np.zeros(len(ruled))
        amounts[read] = fill(wanted[read], low, high, min(max(rest, low.sum()), high.sum()))
        return amounts

    def _bounds(
        self, pool: SharedPool, ruled: NDArray[np.int64], stage: _Stage
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The least and the most tokens of each set."""
        high = np.full(len(ruled), np.inf)
        if self.rules.max_epochs is not None:
            high = np.maximum(self.rules.max_epochs * self.available[ruled] - stage.before[ruled], 0.0)
        low = np.full(len(ruled), (self.rules.min_share or 0.0) * stage.budget)
        if (lacking := int((low > high).sum())) > 0:
            stage.notes.append(
                f"{_called(pool)}: max_epochs keeps {lacking} sets below min_share, for they hold too little"
            )
        return np.minimum(low, high), high

    def _wanted(
        self, pool: SharedPool, ruled: NDArray[np.int64], budget: float | None
    ) -> NDArray[np.float64]:
        if not len(ruled):
            return np.zeros(0)
        labels = [self.sets[index].label for index in ruled]
        tiers = [self.tiers[index] for index in ruled]
        return pool.rule.chosen.amounts(Pool(labels, tiers, self.available[ruled]), budget)

    def _ruled(self, pool: SharedPool) -> NDArray[np.int64]:
        return np.asarray(pool.sets[self.ruled[pool.sets]])

    def _in_pools(self, index: int) -> bool:
        return any(index in pool.sets for pool in self.pools)


def _called(pool: SharedPool) -> str:
    return f"category {pool.name}" if pool.name else "the mixture"
