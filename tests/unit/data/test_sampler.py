import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_ext.config.batch_size import BatchSizes
from megatron_ext.data.sampler import BatchSampler
from megatron_ext.errors import ConfigError


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6), st.integers(0, 10**12))
def test_ranks_share_the_next_global_batch_whatever_the_layout(
    micro: int, ranks: int, accumulate: int, consumed: int
) -> None:
    size = micro * ranks * accumulate
    parts = [BatchSampler(micro, size, rank, ranks).positions(consumed) for rank in range(ranks)]
    assert all(part.shape == (accumulate, micro) for part in parts)
    union = np.sort(np.concatenate([part.reshape(-1) for part in parts]))
    assert np.array_equal(union, np.arange(consumed, consumed + size))


def test_the_order_is_micro_batch_first_then_rank() -> None:
    assert BatchSampler(2, 12, 0, 3).positions(100).tolist() == [[100, 101], [106, 107]]
    assert BatchSampler(2, 12, 2, 3).positions(100).tolist() == [[104, 105], [110, 111]]
    assert BatchSampler(2, 12, 2, 3).positions(0).shape == (2, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((4, 10, 0, 2), r"multiple of .* = 4 \* 2"),
        ((1, 1, 1, 1), "rank 1"),
        ((0, 4, 0, 1), "multiple"),
        ((1, 0, 0, 1), "multiple"),
    ],
)
def test_layouts_that_do_not_divide_are_refused(arguments: tuple[int, int, int, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BatchSampler(*arguments)


def test_a_growing_batch_is_dealt_out_whole() -> None:
    """Whatever the ranks, the positions of one batch follow those of the last, and none is read twice."""
    ramp = BatchSizes(full=16, start=4, increment=4, ramp_samples=36)
    for ranks in (1, 2):
        samplers = [BatchSampler(2, 16, rank, ranks, ramp) for rank in range(ranks)]
        consumed, sizes = 0, []
        for _ in range(8):
            read = np.sort(np.concatenate([sampler.positions(consumed).ravel() for sampler in samplers]))
            np.testing.assert_array_equal(read, np.arange(consumed, consumed + len(read)))
            sizes.append(len(read))
            consumed += len(read)
        assert sizes == [4, 4, 4, 8, 8, 12, 16, 16]
