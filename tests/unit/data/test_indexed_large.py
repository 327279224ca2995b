"""More than 2^31 tokens and 4 GiB of them, in a sparse file that takes almost no disk."""

import os
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
from megatron.core.datasets.indexed_dataset import IndexedDataset as MegatronIndexedDataset
from megatron.core.datasets.utils import Split

from megatron_ext import _C
from megatron_ext.data.indexed import IndexedDataset
from megatron_ext.data.inspect import describe
from megatron_ext.data.samples import TokenSet, megatron_indices, window_samples
from megatron_ext.errors import DataError

SEQ_LENGTH = 100_003
LENGTHS = np.array([2**30 + 5, 0, 2**30 - 77, 2**29 + 1, 13], dtype=np.int64)
STARTS = np.concatenate([[0], np.cumsum(LENGTHS)])
TOKENS = int(STARTS[-1])
MARKED = 4 * SEQ_LENGTH  # tokens around each place of interest that are not 0


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prefix = tmp_path_factory.mktemp("large") / "set"
    random = np.random.default_rng(0)
    with Path(f"{prefix}.bin").open("wb") as stream:
        for place in (2**31, *STARTS[1:]):
            first = max(0, int(place) - MARKED // 2)
            marks = random.integers(1, 2**16, min(MARKED, TOKENS - first), dtype=np.uint16)
            stream.seek(2 * first)
            stream.write(marks.tobytes())
        os.truncate(stream.fileno(), 2 * TOKENS)
    count = len(LENGTHS)
    Path(f"{prefix}.idx").write_bytes(
        struct.pack("<9sQBQQ", b"MMIDIDX\0\0", 1, 8, count, count + 1)
        + LENGTHS.astype("<i4").tobytes()
        + (2 * STARTS[:-1]).astype("<i8").tobytes()
        + np.arange(count + 1, dtype="<i8").tobytes()
    )
    return prefix


def test_sequences_behind_two_to_the_31_tokens(large: Path) -> None:
    dataset, plain = IndexedDataset(large), np.memmap(f"{large}.bin", np.uint16, mode="r")
    assert dataset.num_tokens == TOKENS == len(plain) > 2**31
    dataset.verify()
    assert describe(large).num_tokens == TOKENS
    assert dataset.reader.sequence_start(3) == STARTS[3]
    assert np.array_equal(dataset.read(4), plain[STARTS[4] :])
    inside = 2**31 - int(STARTS[3])
    assert np.array_equal(dataset.read(3, inside - 50, 100), plain[2**31 - 50 : 2**31 + 50])
    assert dataset.read(3, inside - 50, 100).all()


def test_windows_across_two_to_the_31(large: Path) -> None:
    dataset, plain = IndexedDataset(large), np.memmap(f"{large}.bin", np.uint16, mode="r")
    source = window_samples(TokenSet("set", dataset, 0, len(LENGTHS), None), SEQ_LENGTH, None)
    across = 2**31 // SEQ_LENGTH
    windows = np.array([0, across - 1, across, across + 1, source.samples_per_epoch - 1])
    rows, valid = _C.SampleGather([source]).gather(np.zeros(len(windows), np.int32), windows)
    for row, count, window in zip(rows, valid, windows.tolist(), strict=True):
        start = window * SEQ_LENGTH
        assert np.array_equal(row[:count], plain[start : start + SEQ_LENGTH + 1])
    assert rows[2].any()


def test_megatron_order_over_more_than_two_to_the_31_tokens(large: Path) -> None:
    dataset = IndexedDataset(large)
    sequences = np.arange(len(LENGTHS), dtype=np.int32)
    num_samples = TOKENS // SEQ_LENGTH + 10  # a second epoch begins
    config = GPTDatasetConfig(
        random_seed=7, sequence_length=SEQ_LENGTH, blend_per_split=[([str(large)], None), None, None],
        path_to_cache=str(large.parent / "cache"), reset_position_ids=False, reset_attention_mask=False,
        tokenizer=SimpleNamespace(vocab_size=60_000, eod=0, unique_identifiers={}),
        eod_mask_loss=False, create_attention_mask=False,
    )  # fmt: skip
    low_level = MegatronIndexedDataset(str(large))
    theirs = GPTDataset(low_level, str(large), sequences, num_samples, Split.train, config)
    ours = megatron_indices(
        dataset.sequence_lengths, sequences, seq_length=SEQ_LENGTH, seed=7, num_samples=num_samples
    )
    assert np.array_equal(ours.document_index, theirs.document_index)
    assert np.array_equal(ours.sample_index, theirs.sample_index)
    assert np.array_equal(ours.shuffle_index, theirs.shuffle_index)

    source = _C.MegatronSamples(
        dataset.reader, ours.document_index, ours.sample_index, ours.shuffle_index, SEQ_LENGTH
    )
    # Samples at the seams of documents, where the file is not all zeros.
    seams = np.flatnonzero(np.diff(ours.sample_index[:, 0]))
    drawn = np.flatnonzero(np.isin(ours.shuffle_index, seams))
    rows, _ = _C.SampleGather([source]).gather(np.zeros(len(drawn), np.int32), drawn)
    assert rows.any(axis=1).all()
    for row, sample in zip(rows, drawn.tolist(), strict=True):
        assert np.array_equal(row[:-1], theirs[sample]["tokens"])


def test_documents_times_epochs_that_do_not_fit_int32_are_refused() -> None:
    """megatron-core's document index is int32; 5 documents of 1 token in 2^29 epochs are just too many."""
    lengths, sequences = np.ones(5, np.int32), np.arange(5, dtype=np.int32)
    epochs = 2**31 // 5 + 1
    with pytest.raises(DataError, match=f"{epochs} epochs of 5 documents .* use order: permuted"):
        megatron_indices(lengths, sequences, seq_length=5, seed=1, num_samples=epochs - 1)
