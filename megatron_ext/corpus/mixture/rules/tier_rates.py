"""p ∝ rate[tier(n)] n: large languages down-sampled and small ones up-sampled, as EMMA-500 does (arXiv 2409.17892)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from megatron_ext.config.section import Amount
from megatron_ext.corpus.mixture.names import unknown
from megatron_ext.corpus.mixture.rules.base import MixtureRule, Pool


class TierRates(MixtureRule):
    """How often each tier is read, to which a budget then scales all of them alike."""

    rates: dict[str, Amount] = Field(description="epochs of every tier that the mixture has; 0 leaves it out")
    labels: dict[str, Amount] = Field(default={}, description="epochs of labels, in place of their tier's")

    def amounts(self, pool: Pool, budget: float | None) -> NDArray[np.float64]:
        """Tokens to read: rate × n, or that scaled to the budget."""
        rates = [
            self.labels.get(label, self.rates.get(tier or "", 0.0))
            for label, tier in zip(pool.labels, pool.tiers, strict=True)
        ]
        asked = np.array(rates) * pool.tokens
        return asked if budget is None or not asked.any() else np.asarray(asked * (budget / asked.sum()))

    def problems(self, labels: Sequence[str], tiers: Sequence[str]) -> list[str]:
        """Tiers without a rate, and names that the mixture or the corpus does not have."""
        if not tiers:
            return ["rates: the mixture has no tiers; give their thresholds under tiers:"]
        missing = [f"rates: {tier} has none; write one, or 0" for tier in tiers if tier not in self.rates]
        return [
            *missing,
            *(unknown(f"rates.{name}", name, tiers) for name in self.rates if name not in tiers),
            *(unknown(f"labels.{name}", name, labels) for name in self.labels if name not in labels),
        ]
