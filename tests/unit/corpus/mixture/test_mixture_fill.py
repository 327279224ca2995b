"""The fixed point of bounds against handing on, round by round, what exceeds them."""

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from megatron_ext.corpus.mixture.fill import fill

Rows = list[tuple[float, float]]
rows = st.lists(st.tuples(st.floats(1e-3, 1e6), st.floats(1e-3, 1e6)), min_size=1, max_size=30)


def handed_on(wanted: np.ndarray, bound: np.ndarray, total: float, sign: int) -> np.ndarray:
    """Hold those beyond their bound at it, scale the others to the rest, until none is beyond."""
    amounts, held = wanted * total / wanted.sum(), np.zeros(len(wanted), dtype=bool)
    while ((sign * (amounts - bound) > 1e-12 * total) & ~held).any():
        held |= sign * (amounts - bound) > 0
        amounts = np.where(held, bound, wanted)
        rest = total - bound[held].sum()
        amounts[~held] *= rest / wanted[~held].sum()
    return amounts


@settings(max_examples=300, deadline=None)
@given(rows, st.floats(0.01, 0.99))
def test_a_cap_hands_on_in_proportion_until_nothing_exceeds_it(items: Rows, part: float) -> None:
    wanted, high = np.array(items).T
    total = part * high.sum()
    amounts = fill(wanted, np.zeros(len(wanted)), high, total)
    np.testing.assert_allclose(amounts, handed_on(wanted, high, total, 1), rtol=1e-6, atol=1e-9 * total)


@settings(max_examples=300, deadline=None)
@given(rows, st.floats(0.01, 0.99))
def test_a_floor_takes_in_proportion_until_all_reach_it(items: Rows, part: float) -> None:
    wanted, low = np.array(items).T
    total = low.sum() / part
    amounts = fill(wanted, low, np.full(len(wanted), np.inf), total)
    np.testing.assert_allclose(amounts, handed_on(wanted, low, total, -1), rtol=1e-6, atol=1e-9 * total)


@settings(max_examples=300, deadline=None)
@given(rows, st.floats(0, 0.99), st.floats(1e-6, 1))
def test_between_both_bounds_amounts_are_in_proportion(items: Rows, low_part: float, part: float) -> None:
    wanted, high = np.array(items).T
    low = low_part * high
    total = low.sum() + part * (high.sum() - low.sum())
    amounts = fill(wanted, low, high, total)
    assert (amounts >= low).all()
    assert (amounts <= high).all()
    np.testing.assert_allclose(amounts.sum(), total, rtol=1e-9)
    free = (amounts > low * (1 + 1e-9)) & (amounts < high * (1 - 1e-9))
    assume(free.any())
    rate = (amounts[free] / wanted[free]).mean()
    np.testing.assert_allclose(amounts[free], rate * wanted[free], rtol=1e-6)
    assert (low[amounts <= low * (1 + 1e-9)] >= rate * wanted[amounts <= low * (1 + 1e-9)] * (1 - 1e-6)).all()
    assert (high[amounts >= high] <= rate * wanted[amounts >= high] * (1 + 1e-6)).all()
