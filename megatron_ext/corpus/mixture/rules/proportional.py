"""p ∝ n: every set is read equally often."""

import numpy as np
from numpy.typing import NDArray

from megatron_ext.corpus.mixture.rules.base import MixtureRule, Pool, divided


class Proportional(MixtureRule):
    """Shares as they are in the corpus."""

    def amounts(self, pool: Pool, budget: float | None) -> NDArray[np.float64]:
        """Tokens to read: p ∝ n."""
        return divided(pool.tokens, pool, budget)
