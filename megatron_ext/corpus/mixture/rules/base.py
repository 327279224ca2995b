"""What a mixture rule is: a section of YAML that knows how to divide tokens among sets."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megatron_ext.config.section import Section


@dataclass(frozen=True)
class Pool:
    """The sets among which a rule divides tokens.

    Attributes:
        labels: of each set, such as ``eng_Latn``.
        tiers: of each set; None: the mixture has no tiers.
        tokens: float64 [sets], available, all above 0.
    """

    labels: Sequence[str]
    tiers: Sequence[str | None]
    tokens: NDArray[np.float64]


class MixtureRule(Section):
    """Base of the rules: its fields are the rule's keys in YAML."""

    @abstractmethod
    def amounts(self, pool: Pool, budget: float | None) -> NDArray[np.float64]:
        """Tokens to read of each set, float64 [sets].

        Args:
            pool: the sets.
            budget: what they add up to, or less where the rule itself allows no more; None: what the rule
                asks for by itself, which is one epoch of everything where it has no opinion.
        """

    def problems(self, labels: Sequence[str], tiers: Sequence[str]) -> list[str]:  # noqa: ARG002 (most name none)
        """What is wrong with the labels and tiers that the rule names, one line each.

        Args:
            labels: all that the corpus has.
            tiers: all that the mixture has, the one with the most tokens first.
        """
        return []


def divided(weights: NDArray[np.float64], pool: Pool, budget: float | None) -> NDArray[np.float64]:
    """``budget`` (default: one epoch of the pool) in proportion to weights."""
    total = pool.tokens.sum() if budget is None else budget
    return np.asarray(total * weights / weights.sum(), dtype=np.float64)
