"""Draws over stages, against megatron-core's builder stage by stage, and against counting."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from megatron.core.datasets import helpers_cpp

from megatron_ext.data.blend import BlendedDataset
from megatron_ext.data.samples import DocumentRules, TokenSet
from megatron_ext.data.stages import Counters, Stage, StagedBlend, normalised

MakeSet = Callable[..., TokenSet]
stage_lists = st.integers(1, 60).flatmap(
    lambda sets: st.lists(
        st.tuples(
            st.integers(1, 120),  # length
            st.lists(st.integers(0, 5), min_size=sets, max_size=sets).filter(any),
        ),
        min_size=1,
        max_size=4,
    )
)


def stages_of(lengths_and_parts: list[tuple[int, list[int]]]) -> list[Stage]:
    starts = np.cumsum([0] + [length for length, _ in lengths_and_parts[:-1]]).tolist()
    return [
        Stage(start, normalised(parts)) for start, (_, parts) in zip(starts, lengths_and_parts, strict=True)
    ]


def expected_draws(stages: list[Stage], size: int) -> np.ndarray:
    """Sets and samples of ``size`` draws: each stage built by megatron-core, then numbered by counting."""
    ends = [stage.start for stage in stages[1:]] + [size]
    parts = []
    for stage, end in zip(stages, ends, strict=True):
        length = max(min(end, size) - stage.start, 0)
        read = np.flatnonzero(stage.weights)
        ids, unused = np.zeros(length, np.int16), np.zeros(length, np.int64)
        helpers_cpp.build_blending_indices(ids, unused, stage.weights[read], len(read), length, False)
        parts.append(read[ids])
    sets = np.concatenate(parts)
    seen: dict[int, int] = {}
    samples = []
    for one in sets.tolist():
        samples.append(seen.get(one, 0))
        seen[one] = samples[-1] + 1
    return np.stack([sets, np.array(samples, dtype=np.int64)])


@settings(max_examples=60, deadline=None)
@given(stage_lists, st.lists(st.integers(0, 90), max_size=8), st.integers(0, 500))
def test_each_stage_is_megatron_core_s_blend_and_sets_go_on_where_they_stopped(
    lengths_and_parts: list[tuple[int, list[int]]], chunks: list[int], target: int
) -> None:
    stages = stages_of(lengths_and_parts)
    expected = expected_draws(stages, 1000)
    blend = StagedBlend(stages)
    parts = [np.stack(blend.draw(chunk)) for chunk in chunks]
    position = sum(chunks)
    assert blend.position == position
    assert np.array_equal(np.concatenate([np.empty((2, 0)), *parts], axis=1), expected[:, :position])
    saved = blend.counters()
    total = np.bincount(expected[0, :position], minlength=len(stages[0].weights))
    assert np.array_equal(saved.before + saved.drawn, total)

    blend.seek(target)  # backwards or forwards
    assert blend.position == target
    assert np.array_equal(np.stack(blend.draw(150)), expected[:, target : target + 150])
    for reader in (blend, StagedBlend(stages)):
        reader.restore(position, saved)
        assert reader.position == position
        assert np.array_equal(np.stack(reader.draw(150)), expected[:, position : position + 150])


def test_counters_that_cannot_be_are_refused() -> None:
    blend = StagedBlend([Stage(0, normalised([1, 1])), Stage(4, normalised([0, 1]))])
    for before, drawn in (([2, 1], [0, 1]), ([2, 2], [0, 2]), ([-1, 5], [0, 1]), ([2, 2], [1, 0])):
        with pytest.raises(ValueError, match="add up"):
            blend.restore(5, Counters(np.array(before), np.array(drawn)))


@pytest.mark.parametrize("weights", [[], [0, 0], [-1, 2], [np.nan, 1], [np.inf, 1]])
def test_weights_that_cannot_be_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="not negative"):
        normalised(weights)


def test_zeros_do_not_move_the_rounding_of_other_weights() -> None:
    random = np.random.default_rng(0)
    parts = random.lognormal(sigma=3, size=300)
    spread = np.zeros(1000)
    read = np.sort(random.choice(1000, 300, replace=False))
    spread[read] = parts
    assert np.array_equal(normalised(spread)[read], parts / np.sum(parts))


def test_ten_thousand_sets_in_two_stages() -> None:
    weights = np.random.default_rng(1).lognormal(size=10_000)
    stages = [Stage(0, normalised(weights)), Stage(15_000, normalised(weights[::-1]))]
    expected = expected_draws(stages, 30_000)
    blend = StagedBlend(stages)
    assert np.array_equal(np.stack(blend.draw(30_000)), expected)
    counters = blend.counters()
    again = StagedBlend(stages)
    again.restore(30_000, counters)
    assert np.array_equal(np.stack(again.draw(5000)), np.stack(blend.draw(5000)))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.integers(1, 60), parts=st.tuples(st.integers(1, 5), st.integers(1, 5)))
def test_every_sample_of_an_epoch_comes_once_over_stages(
    make_set: MakeSet, start: int, parts: tuple[int, int]
) -> None:
    """Labels of a set are counted: until each has come once, none comes twice, whatever the stages."""
    sets = [make_set("one", [61]), make_set("two", [201])]
    dataset = BlendedDataset(
        sets,
        [1, 1],
        order="permuted",
        seq_length=10,
        seed=3,
        train_samples=100,
        rules=DocumentRules(),
        later_stages=[Stage(start, np.array(parts, dtype=np.float64))],
    )
    ids, samples = dataset.blend().draw(200)
    rows, valid = dataset.gather(ids, samples)
    for index, epoch in enumerate((6, 20)):
        mine = np.flatnonzero(ids == index)
        whole = len(mine) // epoch * epoch
        labels = np.concatenate([rows[i, 1 : valid[i]] for i in mine[:whole]])
        counts = np.bincount(labels, minlength=epoch * 10 + 2)[2:]
        assert (counts == whole // epoch).all()
