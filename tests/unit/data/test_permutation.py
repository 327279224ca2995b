import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_ext import _C


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
def test_every_index_comes_once(size: int, key: int) -> None:
    assert np.array_equal(np.sort(_C.permuted(np.arange(size), size, key)), np.arange(size))


@pytest.mark.parametrize("size", [2**20, 2**20 + 1, 1_000_003])
def test_large_sizes_are_permuted_too(size: int) -> None:
    order = _C.permuted(np.arange(size), size, 7)
    assert np.bincount(order, minlength=size).max() == 1
    # Unrelated to the identity: the correlation of two random orders of n values is about 1 / sqrt(n).
    assert abs(np.corrcoef(order, np.arange(size))[0, 1]) < 5 / np.sqrt(size)


def test_sizes_beyond_memory_work() -> None:
    size = 10**15
    order = _C.permuted(np.arange(10_000), size, 3)
    assert order.min() >= 0
    assert order.max() < size
    assert len(set(order.tolist())) == 10_000


@pytest.mark.parametrize("size", [2, 3, 4])
def test_all_orders_of_a_few_values_are_equally_frequent(size: int) -> None:
    keys = 12_000
    seen = [tuple(_C.permuted(np.arange(size), size, key).tolist()) for key in range(keys)]
    orders = list(itertools.permutations(range(size)))
    expected = keys / len(orders)
    chi_square = sum((seen.count(order) - expected) ** 2 / expected for order in orders)
    # 99.9 % quantiles of chi square with 1, 5 and 23 degrees of freedom.
    assert chi_square < {2: 10.83, 3: 20.52, 4: 49.73}[size]


@pytest.mark.parametrize("size", [5, 6, 7, 37, 100])
def test_every_value_is_equally_frequent_at_every_place(size: int) -> None:
    keys = 10_000
    counts = np.zeros((size, size))
    for key in range(keys):
        counts[np.arange(size), _C.permuted(np.arange(size), size, key)] += 1
    chi_square = ((counts - keys / size) ** 2 / (keys / size)).sum()
    freedom = (size - 1) ** 2
    assert abs(chi_square - freedom) < 4.5 * np.sqrt(2 * freedom)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="permutation"):
        _C.permuted(np.arange(1), 0, 0)
    for index in (3, -1):
        with pytest.raises(ValueError, match="outside"):
            _C.permuted(np.array([index]), 3, 0)
