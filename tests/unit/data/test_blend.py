from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from megatron.core.datasets import helpers_cpp
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig

from megatron_ext import _C
from megatron_ext.data.blend import BlendedDataset
from megatron_ext.data.samples import DocumentRules, TokenSet


def megatron_blend(weights: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    datasets, samples = np.zeros(size, np.int16), np.zeros(size, np.int64)
    helpers_cpp.build_blending_indices(datasets, samples, weights, len(weights), size, False)
    return datasets, samples


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=70), st.integers(1, 3000))
def test_draws_are_megatron_core_s_with_ties(parts: list[int], size: int) -> None:
    """Small whole numbers make many equal weights, and so many ties."""
    weights = np.array(parts, dtype=np.float64) / sum(parts)
    ours, theirs = _C.Blend(weights).draw(size), megatron_blend(weights, size)
    assert np.array_equal(ours[0], theirs[0])
    assert np.array_equal(ours[1], theirs[1])


@pytest.mark.parametrize("num_sets", [31, 32, 33, 546])
def test_draws_of_skewed_weights_are_megatron_core_s(num_sets: int) -> None:
    weights = np.random.default_rng(num_sets).random(num_sets) ** 4
    weights /= weights.sum()
    ours, theirs = _C.Blend(weights).draw(100_000), megatron_blend(weights, 100_000)
    assert np.array_equal(ours[0], theirs[0])
    assert np.array_equal(ours[1], theirs[1])


def test_more_sets_than_megatron_core_can_number() -> None:
    num_sets = 33_000
    weights = np.full(num_sets, 1 / num_sets)
    datasets, samples = _C.Blend(weights).draw(num_sets + 3)
    assert datasets.dtype == np.int32
    assert sorted(datasets[:num_sets].tolist()) == list(range(num_sets))
    assert samples[:num_sets].max() == 0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 50), max_size=8), st.integers(0, 300))
def test_neither_chunks_nor_seeking_change_the_draws(chunks: list[int], target: int) -> None:
    weights = np.array([0.5, 0.2, 0.2, 0.1])
    reference = np.stack(_C.Blend(weights).draw(1000))
    blend = _C.Blend(weights)
    parts = [np.stack(blend.draw(chunk)) for chunk in chunks]
    position = sum(chunks)
    assert blend.position == position
    assert np.array_equal(np.concatenate([np.empty((2, 0)), *parts], axis=1), reference[:, :position])
    assert np.array_equal(blend.counts(), np.bincount(reference[0, :position], minlength=4))
    blend.seek(target)  # backwards or forwards
    assert np.array_equal(np.stack(blend.draw(20)), reference[:, target : target + 20])


@pytest.mark.parametrize("weights", [[], [0.0, 1.0], [-1.0, 2.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_weights_that_cannot_be_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match=r"weight|blend"):
        _C.Blend(np.array(weights))


def test_positions_that_cannot_be_are_refused() -> None:
    blend = _C.Blend(np.array([1.0]))
    with pytest.raises(ValueError, match="no position -1"):
        blend.seek(-1)
    with pytest.raises(ValueError, match="negative"):
        blend.draw(-1)


@pytest.mark.parametrize("weights", [[30.0, 50.0, 20.0], [0.1, 0.1, 0.7], [1 / 3, 1 / 3, 1 / 3]])
def test_a_run_in_megatron_order_is_megatron_core_s(
    make_set: Callable[..., TokenSet], weights: list[float]
) -> None:
    """End to end: weights, surplus, samples and blend, as megatron-core's own builder puts them together."""
    random = np.random.default_rng(5)
    sets = [
        make_set(
            f"set{i}", lengths := random.integers(1, 60, 40).tolist(), random.integers(0, 999, sum(lengths))
        )
        for i in range(3)
    ]
    config = GPTDatasetConfig(
        random_seed=77,
        sequence_length=32,
        blend_per_split=[([str(tokens.dataset.prefix) for tokens in sets], weights), None, None],
        tokenizer=SimpleNamespace(vocab_size=999, eod=0, unique_identifiers={}),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
    )
    theirs = BlendedMegatronDatasetBuilder(GPTDataset, [200, 0, 0], lambda: True, config).build()[0]
    ours = BlendedDataset(
        sets, weights, order="megatron", seq_length=32, seed=77, train_samples=200, rules=DocumentRules()
    )
    datasets, samples = ours.blend().draw(200)
    rows, _ = ours.gather(datasets, samples)
    for i in range(200):
        assert datasets[i] == theirs[i]["dataset_id"]
        assert np.array_equal(rows[i, :-1], theirs[i]["tokens"])


def test_epochs_count_what_is_read(make_set: Callable[..., TokenSet]) -> None:
    sets = [make_set("small", [41]), make_set("large", [401])]
    blended = BlendedDataset(
        sets, [1, 4], order="permuted", seq_length=10, seed=1, train_samples=100, rules=DocumentRules()
    )
    assert blended.names == ("small", "large")
    assert blended.weights.tolist() == [0.2, 0.8]
    assert blended.samples_per_epoch.tolist() == [4, 40]
    assert blended.num_samples == 44
    assert blended.epochs(100).tolist() == [5.0, 2.0]
    counts = np.bincount(blended.blend().draw(100)[0])
    assert (counts / blended.samples_per_epoch).tolist() == [5.0, 2.0]
