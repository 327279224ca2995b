from hypothesis import given
from hypothesis import strategies as st

from megatron_ext.config.nearest import nearest_divisors, nearest_multiples


@given(st.integers(1, 10_000), st.integers(1, 200))
def test_nearest_multiples_are_the_nearest(value: int, unit: int) -> None:
    proposed = {int(number) for number in nearest_multiples(value, unit).split(", ")}
    below = max((n for n in range(1, value + 1) if n % unit == 0), default=None)
    above = min(n for n in range(value + 1, value + unit + 1) if n % unit == 0)
    assert proposed == {n for n in (below, above) if n is not None}


@given(st.integers(1, 500), st.integers(1, 600))
def test_nearest_divisors_divide(number: int, value: int) -> None:
    proposed = [int(text) for text in nearest_divisors(number, value).split(", ") if text]
    assert all(number % divisor == 0 for divisor in proposed)
    between = range(min(proposed, default=1) + 1, max(proposed, default=1))
    assert len(proposed) < 2 or not [n for n in between if n != value and number % n == 0]
