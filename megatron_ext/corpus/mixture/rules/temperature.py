"""p ∝ n^alpha: multilingual BERT's rule.

The exponent is 0.7 in mBERT (github.com/google-research/bert, multilingual.md), 0.3 in XLM-R (arXiv 1911.02116,
section 3.1) and in mT5 (arXiv 2010.11934, section 3.1). A temperature T, as others write it, is 1 / alpha.
"""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from megatron_ext.config.section import Alpha
from megatron_ext.corpus.mixture.rules.base import MixtureRule, Pool, divided


class Temperature(MixtureRule):
    """Small sets lifted by an exponent; nothing limits how often they are read."""

    alpha: Alpha = Field(description="1: in proportion; the smaller, the more even")

    def amounts(self, pool: Pool, budget: float | None) -> NDArray[np.float64]:
        """Tokens to read: p ∝ n^alpha."""
        return divided(pool.tokens**self.alpha, pool, budget)
