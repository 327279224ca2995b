"""UniMax (arXiv 2304.09151, algorithm 1): as even as it gets without reading any set more than N times."""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from megatron_ext.corpus.mixture.rules.base import MixtureRule, Pool


class UniMax(MixtureRule):
    """Equal amounts, at most N epochs; what a small set cannot take goes to the larger ones."""

    epochs: Annotated[float, Field(gt=0)] = Field(description="N: how often a set is read at most")

    def amounts(self, pool: Pool, budget: float | None) -> NDArray[np.float64]:
        """In ascending n: a_i = min(what is left / sets that are left, N n_i).

        They add up to less than the budget where that exceeds N Σ n.
        """
        left = float(pool.tokens.sum() if budget is None else budget)
        amounts = np.zeros_like(pool.tokens)
        order = np.argsort(pool.tokens, kind="stable")
        for done, index in enumerate(order):
            amounts[index] = min(left / (len(order) - done), self.epochs * pool.tokens[index])
            left -= amounts[index]
        return amounts
