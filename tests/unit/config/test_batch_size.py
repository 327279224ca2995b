"""The batch at each position, against megatron-core's calculator and by walking there."""

from hypothesis import given
from hypothesis import strategies as st
from megatron.core.num_microbatches_calculator import RampupBatchsizeNumMicroBatchesCalculator

from megatron_ext.config.batch_size import BatchSizes


@st.composite
def ramps(draw: st.DrawFn) -> BatchSizes:
    increment, parts = draw(st.integers(1, 16)), draw(st.integers(1, 12))
    start = draw(st.integers(1, 32))
    return BatchSizes(start + parts * increment, start, increment, draw(st.integers(1, 3000)))


@given(ramps(), st.integers(1, 40))
def test_equals_megatron_core(ramp: BatchSizes, per_part: int) -> None:
    """On parts of whole samples: on others megatron-core divides in floating point and may be a batch late."""
    parts = (ramp.full - ramp.start) // ramp.increment
    ours = BatchSizes(ramp.full, ramp.start, ramp.increment, parts * per_part)
    theirs = RampupBatchsizeNumMicroBatchesCalculator(
        ramp.full, 1, 1, False, 1, ramp.start, ramp.increment, parts * per_part
    )
    for consumed in range(0, parts * per_part + 10, 7):
        theirs.update(consumed, False)
        assert ours.at(consumed) == theirs.current_global_batch_size


@given(ramps(), st.integers(0, 400))
def test_the_samples_of_a_run_are_those_of_its_batches(ramp: BatchSizes, iterations: int) -> None:
    consumed = 0
    for _ in range(iterations):
        consumed += ramp.at(consumed)
    assert ramp.samples_after(iterations) == consumed


def test_without_a_ramp_every_batch_is_full() -> None:
    plain = BatchSizes(12, 12)
    assert (plain.at(0), plain.at(5), plain.samples_after(7)) == (12, 12, 84)
