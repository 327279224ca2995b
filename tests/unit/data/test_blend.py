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


INSTRUCTION_SETS = _C.blend_instruction_sets()
every_instruction_set = pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)


def check_draws(weights: np.ndarray, size: int, instruction_set: str) -> None:
    ours, theirs = _C.Blend(weights, instruction_set).draw(size), megatron_blend(weights, size)
    assert np.array_equal(ours[0], theirs[0])
    assert np.array_equal(ours[1], theirs[1])


def test_instruction_sets_have_names_and_a_portable_one() -> None:
    assert INSTRUCTION_SETS[-1] == "portable"
    assert set(INSTRUCTION_SETS) <= {"avx512", "avx2", "portable"}
    with pytest.raises(ValueError, match="no instruction set mmx"):
        _C.Blend(np.array([1.0]), "mmx")


@every_instruction_set
@settings(max_examples=60, deadline=None)
@given(parts=st.lists(st.integers(1, 12), min_size=1, max_size=120), size=st.integers(1, 3000))
def test_draws_are_megatron_core_s_with_ties(instruction_set: str, parts: list[int], size: int) -> None:
    """Small whole numbers make many equal weights, and so many ties."""
    check_draws(np.array(parts, dtype=np.float64) / sum(parts), size, instruction_set)


@every_instruction_set
@settings(max_examples=60, deadline=None)
@given(
    num_sets=st.integers(1, 300),
    seed=st.integers(0, 2**32 - 1),
    skew_and_sum=st.sampled_from([(0.1, 1.0), (1.0, 1.0), (4.0, 1.0), (12.0, 1.0), (1.0, 1e-6), (1.0, 3.7)]),
    size=st.integers(1, 4000),
)
def test_draws_of_random_weights_are_megatron_core_s(
    instruction_set: str, num_sets: int, seed: int, skew_and_sum: tuple[float, float], size: int
) -> None:
    """From almost even to one set with nearly all, also where weights do not add up to 1."""
    skew, total = skew_and_sum
    weights = np.random.default_rng(seed).lognormal(sigma=skew, size=num_sets)
    check_draws(weights / weights.sum() * total, size, instruction_set)


@every_instruction_set
@settings(max_examples=30, deadline=None)
@given(
    weights=st.lists(
        st.floats(min_value=0, exclude_min=True, allow_nan=False, allow_infinity=False),
        min_size=1,
        max_size=80,
    )
)
def test_draws_of_any_weights_are_megatron_core_s(instruction_set: str, weights: list[float]) -> None:
    """Subnormal weights, and so large ones that errors overflow."""
    check_draws(np.array(weights), 500, instruction_set)


@every_instruction_set
@pytest.mark.parametrize("num_sets", [31, 32, 33, 48, 49, 546])
def test_draws_of_skewed_weights_are_megatron_core_s(num_sets: int, instruction_set: str) -> None:
    weights = np.random.default_rng(num_sets).random(num_sets) ** 4
    check_draws(weights / weights.sum(), 100_000, instruction_set)


@every_instruction_set
@pytest.mark.parametrize("sigma", [0.0, 2.0])
def test_draws_of_ten_thousand_sets_are_megatron_core_s(sigma: float, instruction_set: str) -> None:
    weights = np.random.default_rng(4).lognormal(sigma=sigma, size=10_000)
    check_draws(weights / weights.sum(), 21_000, instruction_set)


def test_more_sets_than_megatron_core_can_number() -> None:
    num_sets = 33_000
    weights = np.full(num_sets, 1 / num_sets)
    datasets, samples = _C.Blend(weights).draw(num_sets + 3)
    assert datasets.dtype == np.int32
    assert sorted(datasets[:num_sets].tolist()) == list(range(num_sets))
    assert samples[:num_sets].max() == 0


@every_instruction_set
@settings(max_examples=40, deadline=None)
@given(
    chunks=st.lists(st.integers(0, 50), max_size=8),
    target=st.integers(0, 300),
    weights=st.sampled_from([[5, 2, 2, 1], [*range(1, 40), *range(1, 40)]]),
)
def test_neither_chunks_nor_seeking_nor_restoring_change_the_draws(
    instruction_set: str, chunks: list[int], target: int, weights: list[int]
) -> None:
    weights = np.array(weights) / sum(weights)
    reference = np.stack(megatron_blend(weights, 1000))
    blend = _C.Blend(weights, instruction_set)
    parts = [np.stack(blend.draw(chunk)) for chunk in chunks]
    position = sum(chunks)
    assert blend.position == position
    assert np.array_equal(np.concatenate([np.empty((2, 0)), *parts], axis=1), reference[:, :position])
    assert np.array_equal(blend.counts(), np.bincount(reference[0, :position], minlength=len(weights)))
    saved = blend.counts()
    blend.seek(target)  # backwards or forwards
    assert np.array_equal(np.stack(blend.draw(20)), reference[:, target : target + 20])
    for reader in (blend, _C.Blend(weights, instruction_set)):
        reader.restore(position, saved)
        assert reader.position == position
        assert np.array_equal(reader.counts(), saved)
        assert np.array_equal(np.stack(reader.draw(20)), reference[:, position : position + 20])


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


@pytest.mark.parametrize(
    ("position", "counts", "message"),
    [
        (-1, [0, 0], "no position -1"),
        (2**53 + 1, [2**53, 1], "no position"),
        (3, [1, 1], "add up to the position 3"),
        (3, [2, 2], "add up to the position 3"),
        (3, [4, -1], "add up to the position 3"),
        (3, [2**63 - 1, 2**63 - 1], "add up to the position 3"),
        (3, [3], "counts are of 1 datasets, the blend is of 2"),
    ],
)
def test_counts_that_cannot_be_are_refused(position: int, counts: list[int], message: str) -> None:
    blend = _C.Blend(np.array([0.5, 0.5]))
    blend.draw(5)
    with pytest.raises(ValueError, match=message):
        blend.restore(position, np.array(counts))
    assert blend.position == 5  # as it was
    assert blend.counts().tolist() == [3, 2]


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
