from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from megatron.core.datasets import helpers
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.indexed_dataset import IndexedDataset as MegatronIndexedDataset
from megatron.core.datasets.utils import Split

from megatron_ext import _C
from megatron_ext.data.indexed import IndexedDataset
from megatron_ext.data.samples import TokenSet, megatron_indices, megatron_samples, window_samples
from megatron_ext.errors import DataError

SAME_FOLDER = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
MakeSet = Callable[..., TokenSet]


def read(source: _C.SampleSource, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return _C.SampleGather([source]).gather(np.zeros(len(samples), np.int32), samples)


@SAME_FOLDER
@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=20).filter(lambda lengths: sum(lengths) > 1),
    seq_length=st.integers(1, 40),
    seed=st.none() | st.integers(0, 2**32),
)
def test_every_epoch_trains_every_token_exactly_once(
    make_set: MakeSet, lengths: list[int], seq_length: int, seed: int | None
) -> None:
    tokens = make_set("set", lengths)
    source = window_samples(tokens, seq_length, seed)
    total = sum(lengths)
    assert source.samples_per_epoch == max(1, -(-(total - 1) // seq_length))
    for epoch in range(3):
        samples = np.arange(source.samples_per_epoch) + epoch * source.samples_per_epoch
        rows, valid = read(source, samples)
        labels = [row[1:count] for row, count in zip(rows, valid, strict=True)]
        # Tokens are 1, 2, 3, …: the first is no label; every other one is, once, behind its predecessor.
        assert sorted(np.concatenate(labels).tolist()) == list(range(2, total + 1))
        for row, count in zip(rows, valid, strict=True):
            assert np.array_equal(row[:count], np.arange(row[0], row[0] + count))
            assert not row[count:].any()
        if seed is None:
            assert np.array_equal(rows[:, 0], 1 + seq_length * np.arange(source.samples_per_epoch))


def test_the_order_changes_with_epoch_seed_and_name_only(make_set: MakeSet, tmp_path: Path) -> None:
    first, other = make_set("first", [5000]), make_set("other", [5000])
    samples = np.arange(500)

    def order(tokens: TokenSet, seed: int, epoch: int) -> list[int]:
        return read(window_samples(tokens, 10, seed), samples + 500 * epoch)[0][:, 0].tolist()

    reference = order(first, 1, 0)
    assert reference == order(first, 1, 0)
    for changed in (order(first, 2, 0), order(first, 1, 1), order(other, 1, 0)):
        same = sum(a == b for a, b in zip(reference, changed, strict=True))
        assert same < 10  # one on average
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for suffix in (".bin", ".idx"):
        Path(f"{first.dataset.prefix}{suffix}").rename(moved / f"first{suffix}")
    again = IndexedDataset(moved / "first")
    assert order(TokenSet("first", again, 0, 1, None), 1, 0) == reference


def test_a_set_of_one_token_has_one_row_without_a_label(make_set: MakeSet) -> None:
    source = window_samples(make_set("set", [1]), 4, 1)
    rows, valid = read(source, np.arange(2))
    assert (source.samples_per_epoch, rows.tolist(), valid.tolist()) == (1, [[1, 0, 0, 0, 0]] * 2, [1, 1])


def test_windows_of_a_part_stay_inside_of_it(make_set: MakeSet) -> None:
    dataset = make_set("set", [4, 0, 5, 3]).dataset
    part = TokenSet("part", dataset, 1, 3, None)
    rows, valid = read(window_samples(part, 3, None), np.arange(2))
    assert part.num_tokens == 5
    assert rows.tolist() == [[5, 6, 7, 8], [8, 9, 0, 0]]
    assert valid.tolist() == [4, 2]


@pytest.mark.parametrize(("first", "end"), [(3, 2), (0, 5), (-1, 2)])
def test_parts_that_do_not_exist_are_refused(make_set: MakeSet, first: int, end: int) -> None:
    reader = make_set("set", [4, 4, 5, 3]).dataset.reader
    with pytest.raises((ValueError, IndexError), match=r"range|sequence"):
        _C.WindowSamples(reader, first, end, 3, None)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=30), st.integers(2, 15), st.integers(1, 3))
def test_the_sample_index_is_megatron_core_s(lengths: list[int], seq_length: int, epochs: int) -> None:
    sizes = np.array(lengths, dtype=np.int32)
    order = np.tile(np.random.default_rng(0).permutation(len(sizes)).astype(np.int32), epochs)
    tokens = int(sizes.sum())
    samples = (epochs * tokens - 1) // seq_length
    if tokens < 2 or samples < 1:
        return
    theirs = helpers.build_sample_idx(sizes, order, seq_length, epochs, tokens)
    assert np.array_equal(_C.build_sample_index(sizes, order, seq_length, samples), theirs)
    with pytest.raises(ValueError, match="missing"):
        _C.build_sample_index(sizes, order, seq_length, samples + 1)


def megatron_dataset(
    prefix: Path, sequences: np.ndarray, num_samples: int, seq_length: int, seed: int
) -> GPTDataset:
    config = GPTDatasetConfig(
        random_seed=seed,
        sequence_length=seq_length,
        blend_per_split=[([str(prefix)], None), None, None],
        path_to_cache=str(prefix.parent / "cache"),
        tokenizer=SimpleNamespace(vocab_size=60_000, eod=0, unique_identifiers={}),
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
    )
    low_level = MegatronIndexedDataset(str(prefix))
    return GPTDataset(low_level, str(prefix), sequences, num_samples, Split.train, config)


@pytest.mark.parametrize(
    ("num_samples", "why"),
    [
        (1, "part of one epoch"),
        (60, "one epoch, or nearly"),
        (100, "a small part of the second epoch, shuffled apart"),
        (118, "most of the second epoch, shuffled with the first"),
        (500, "many epochs"),
    ],
)
@pytest.mark.parametrize("part", [(0, 40), (5, 31)])
def test_megatron_order_is_gpt_dataset_draw_for_draw(
    make_set: MakeSet, num_samples: int, why: str, part: tuple[int, int]
) -> None:
    lengths = np.random.default_rng(3).integers(0, 50, 40)
    whole = make_set("set", lengths.tolist())
    tokens = TokenSet("set", whole.dataset, *part, None)
    sequences = np.arange(*part, dtype=np.int32)
    theirs = megatron_dataset(whole.dataset.prefix, sequences, num_samples, 16, 1234)
    indices = megatron_indices(
        whole.dataset.sequence_lengths, sequences, seq_length=16, seed=1234, num_samples=num_samples
    )
    assert np.array_equal(indices.document_index, theirs.document_index), why
    assert np.array_equal(indices.sample_index, theirs.sample_index)
    assert np.array_equal(indices.shuffle_index, theirs.shuffle_index)

    source = megatron_samples(tokens, 16, 1234, num_samples)
    assert source.num_samples == len(theirs)
    rows, valid = read(source, np.arange(len(theirs)))
    assert (valid == 17).all()
    for i in range(len(theirs)):
        assert np.array_equal(rows[i, :-1], theirs[i]["tokens"])
        assert np.array_equal(rows[i, 1:], theirs[i]["labels"])
    with pytest.raises(DataError, match="longer than its order"):
        read(source, np.array([len(theirs)]))


def test_megatron_order_says_what_it_cannot_do() -> None:
    lengths = np.array([1, 0], dtype=np.int32)
    with pytest.raises(DataError, match="not enough"):
        megatron_indices(lengths, np.arange(2, dtype=np.int32), seq_length=4, seed=1, num_samples=1)
    lengths = np.array([2, 0], dtype=np.int32)
    with pytest.raises(DataError, match="use order: permuted"):
        megatron_indices(lengths, np.arange(2, dtype=np.int32), seq_length=4, seed=1, num_samples=2**31)


def test_sources_of_a_batch_must_agree(make_set: MakeSet) -> None:
    small = window_samples(make_set("small", [9]), 4, 1)
    with pytest.raises(ValueError, match="one seq_length"):
        _C.SampleGather([small, window_samples(make_set("long", [9]), 5, 1)])
    with pytest.raises(DataError, match=r"wide\.bin: its tokens are stored with another dtype"):
        _C.SampleGather([small, window_samples(make_set("wide", [9], dtype=np.int32), 4, 1)])
    with pytest.raises(ValueError, match="nothing"):
        _C.SampleGather([])
    gather = _C.SampleGather([small])
    assert gather.gather(np.array([-1], np.int32), np.array([0]))[0].tolist() == [[0] * 5]
    gather.prefetch(np.array([-1, 0], np.int32), np.array([0, 1]))
    for refused in ([1], [0]), ([0], [-1]), ([0, 0], [1]):
        with pytest.raises(ValueError, match=r"no source 1|no sample -1|of one size"):
            gather.prefetch(np.array(refused[0], np.int32), np.array(refused[1]))
    with pytest.raises(ValueError, match="no source 1"):
        gather.gather(np.array([1], np.int32), np.array([0]))
    with pytest.raises(ValueError, match="no sample -1"):
        gather.gather(np.array([0], np.int32), np.array([-1]))
