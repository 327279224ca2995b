"""Amounts between bounds: the fixed point of "what one may not take goes to the others in proportion"."""

import numpy as np
from numpy.typing import NDArray

Amounts = NDArray[np.float64]


def fill(wanted: Amounts, low: Amounts, high: Amounts, total: float) -> Amounts:
    """The amounts ``clip(λ wanted, low, high)`` with the λ for which they add up to ``total``.

    Handing on what exceeds a bound to those that are inside, in proportion, and again until nothing does, ends
    here whatever the order of hands; so this finds λ at once. The sum grows with λ and is linear between the
    points where a set meets a bound: the last of these below ``total``, then a straight line.

    Args:
        wanted: float64 [sets], above 0.
        low: float64 [sets].
        high: float64 [sets], at least ``low``.
        total: from the sum of ``low`` to that of ``high``.
    """
    enters, leaves = low / wanted, high / wanted
    points = np.unique(np.concatenate([[0.0], enters, leaves]))
    points = points[np.isfinite(points)]
    below, above = 0, len(points)
    while above - below > 1:
        middle = (below + above) // 2
        if np.clip(points[middle] * wanted, low, high).sum() <= total:
            below = middle
        else:
            above = middle
    free = (enters <= points[below]) & (points[below] < leaves)
    amounts = np.clip(points[below] * wanted, low, high)
    missing = total - amounts.sum()
    if free.any() and missing > 0:
        amounts[free] += missing * wanted[free] / wanted[free].sum()
    return np.asarray(np.clip(amounts, low, high))
