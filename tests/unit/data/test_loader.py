import subprocess
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from megatron.core.datasets.gpt_dataset import _get_ltor_masks_and_position_ids

from megatron_ext.data.blend import BlendedDataset, ValidationDataset
from megatron_ext.data.loader import MicroBatch, TrainLoader, ValidationLoader
from megatron_ext.data.position import DataPosition
from megatron_ext.data.sampler import BatchSampler
from megatron_ext.data.samples import DocumentRules, TokenSet
from megatron_ext.errors import DataError

SEQ_LENGTH = 8
EOD = 3
MakeSet = Callable[..., TokenSet]


@pytest.fixture
def sets(make_set: MakeSet) -> list[TokenSet]:
    random = np.random.default_rng(11)
    return [make_set(f"set{i}", [n], random.integers(0, 6, n)) for i, n in enumerate((60, 300, 1000))]


def blended(sets: list[TokenSet], rules: DocumentRules | None = None) -> BlendedDataset:
    return BlendedDataset(
        sets,
        [0.2, 0.3, 0.5],
        order="permuted",
        seq_length=SEQ_LENGTH,
        seed=1,
        train_samples=1000,
        rules=rules or DocumentRules(),
    )


def rows_of(batches: list[MicroBatch]) -> list[tuple[int, ...]]:
    """Rows as (set, masked labels, tokens), to compare batches of different layouts."""
    rows = []
    for batch in batches:
        mask = np.ones((len(batch.tokens), SEQ_LENGTH)) if batch.loss_mask is None else batch.loss_mask
        for i, tokens in enumerate(batch.tokens):
            rows.append((int(batch.dataset_index[i]), int(mask[i].sum()), *tokens.tolist()))
    return rows


def read(dataset: BlendedDataset, sampler: BatchSampler, consumed: int, count: int) -> list[list[MicroBatch]]:
    stream = TrainLoader(dataset, sampler, 2).batches(consumed)
    batches = list(islice(stream, count))
    stream.close()
    return batches


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    layout=st.sampled_from([(1, 1), (1, 4), (2, 2), (3, 4), (12, 1), (6, 2), (1, 12)]),
    consumed=st.integers(0, 400),
)
def test_consumed_samples_alone_decide_what_comes_next(
    sets: list[TokenSet], layout: tuple[int, int], consumed: int
) -> None:
    dataset = blended(sets)
    micro, ranks = layout
    reference = [rows_of(read(dataset, BatchSampler(12, 12, 0, 1), consumed, 2)[i]) for i in range(2)]
    ranks_batches = [
        read(dataset, BatchSampler(micro, 12, rank, ranks), consumed, 2) for rank in range(ranks)
    ]
    for i in range(2):
        union = [row for batches in ranks_batches for row in rows_of(batches[i])]
        assert sorted(union) == sorted(reference[i])


def test_a_resumed_stream_continues_an_unbroken_one(sets: list[TokenSet]) -> None:
    dataset = blended(sets)
    unbroken = read(dataset, BatchSampler(4, 8, 1, 2), 0, 12)
    resumed = read(dataset, BatchSampler(2, 8, 1, 2), 40, 7)
    assert [rows_of(batch) for batch in unbroken[5:]] != []
    for before, after in zip(unbroken[5:], resumed, strict=True):
        assert [len(batch.tokens) for batch in before] == [4]
        assert [len(batch.tokens) for batch in after] == [2, 2]
    whole = [
        row
        for rank in (0, 1)
        for batch in read(dataset, BatchSampler(4, 8, rank, 2), 40, 7)
        for row in rows_of(batch)
    ]
    parts = [
        row
        for rank in (0, 1)
        for batch in read(dataset, BatchSampler(2, 8, rank, 2), 40, 7)
        for row in rows_of(batch)
    ]
    assert sorted(whole) == sorted(parts)
    assert [rows_of(batch) for batch in unbroken[5:]] == [
        rows_of(batch) for batch in read(dataset, BatchSampler(4, 8, 1, 2), 40, 7)
    ]


def test_batches_keep_the_disk_s_dtype_and_shape(sets: list[TokenSet]) -> None:
    batch = read(blended(sets), BatchSampler(4, 8, 0, 1), 0, 1)[0]
    assert len(batch) == 2
    assert batch[0].tokens.dtype == np.uint16
    assert batch[0].tokens.shape == (4, SEQ_LENGTH + 1)
    assert batch[0].dataset_index.dtype == np.int32
    assert batch[0].cu_seqlens is None


@pytest.mark.parametrize("eod_mask_loss", [False, True])
def test_masks_and_boundaries_are_megatron_core_s(sets: list[TokenSet], eod_mask_loss: bool) -> None:
    rules = DocumentRules(eod_id=EOD, eod_mask_loss=eod_mask_loss, mark_boundaries=True)
    for batch in (
        b for batches in read(blended(sets, rules), BatchSampler(5, 10, 0, 1), 30, 12) for b in batches
    ):
        assert batch.cu_seqlens is not None
        assert batch.cu_seqlens.dtype == np.int32
        position_ids = np.concatenate([np.arange(n) for n in np.diff(batch.cu_seqlens)])
        for i, row in enumerate(batch.tokens):
            _, loss_mask, positions = _get_ltor_masks_and_position_ids(
                torch.from_numpy(row[:-1].astype(np.int64)), EOD, True, True, eod_mask_loss, False
            )
            assert np.array_equal(position_ids[i * SEQ_LENGTH : (i + 1) * SEQ_LENGTH], positions)
            if batch.loss_mask is None:
                assert loss_mask.all()
            else:
                # What only we mask is the padding behind the last token of a set.
                ours = batch.loss_mask[i]
                labels = int(np.flatnonzero(ours)[-1]) + 1
                assert np.array_equal(ours[:labels], loss_mask.numpy()[:labels])


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            [1, 2, 4, 5, 1, 2, 4, EOD, 5, 1, 2, 4, 5, 1, 2, EOD, 4], id="documents end where windows do"
        ),
        pytest.param(
            [1, 2, EOD, EOD, EOD, 4, 5, EOD, EOD, 1, EOD, EOD, EOD, EOD, EOD, EOD, EOD], id="in a row"
        ),
        pytest.param([1, 2, 4, 5, 1, 2, 4, 5, EOD, 1, 2, 4, 5, 1, 2, 4, EOD], id="last token, only a label"),
        pytest.param([EOD, 1, 2, 4, 5, EOD, 1, 2, EOD, 1, 2], id="short last window"),
        pytest.param([EOD, EOD], id="nothing else"),
    ],
)
def test_masks_and_boundaries_token_by_token(make_set: MakeSet, text: list[int]) -> None:
    """Each label is walked to in its document; windows follow each other in the file, as validation reads them."""
    rules = DocumentRules(eod_id=EOD, eod_mask_loss=True, mark_boundaries=True)
    dataset = ValidationDataset([make_set("set", [len(text)], np.array(text))], seq_length=8, rules=rules)
    (batches,) = ValidationLoader(dataset, BatchSampler(2, 2, 0, 1), None).batches()
    (batch,) = batches
    assert batch.loss_mask is not None
    assert batch.cu_seqlens is not None
    mask = np.zeros((2, SEQ_LENGTH), dtype=np.uint8)
    positions = np.zeros((2, SEQ_LENGTH), dtype=np.int64)
    for row in range(2):
        inputs = (text[8 * row : 8 * row + 8] if 8 * row < len(text) - 1 else []) + [0] * 8
        for column in range(SEQ_LENGTH):
            follows_eod = inputs[column] == EOD
            mask[row, column] = 8 * row + column + 1 < len(text) and not follows_eod
            starts = column == 0 or inputs[column - 1] == EOD
            positions[row, column] = 0 if starts else positions[row, column - 1] + 1
    assert batch.loss_mask.tolist() == mask.tolist()
    assert batch.cu_seqlens.tolist() == [*np.flatnonzero(positions.reshape(-1) == 0).tolist(), 16]
    restarted = np.concatenate([np.arange(n) for n in np.diff(batch.cu_seqlens)])
    assert restarted.tolist() == positions.reshape(-1).tolist()


def test_one_epoch_counts_every_label_once(sets: list[TokenSet]) -> None:
    dataset = BlendedDataset(
        sets[:1], [1], order="permuted", seq_length=SEQ_LENGTH, seed=1, train_samples=8, rules=DocumentRules()
    )
    rows = rows_of(read(dataset, BatchSampler(8, 8, 0, 1), 0, 1)[0])
    assert sum(row[1] for row in rows) == 59


class BrokenDataset:
    """A blend whose third batch cannot be read."""

    rules = DocumentRules()

    def __init__(self, dataset: BlendedDataset) -> None:
        self.dataset, self.calls = dataset, 0

    def blend(self, position: int, saved: DataPosition | None) -> object:
        return self.dataset.blend(position, saved)

    def prefetch(self, *arguments: np.ndarray) -> None:
        self.dataset.prefetch(*arguments)

    def gather(self, *arguments: np.ndarray) -> object:
        self.calls += 1
        if self.calls == 3:
            raise OSError("the disk is gone")
        return self.dataset.gather(*arguments)


def test_an_error_of_the_thread_reaches_the_reader_in_its_place(sets: list[TokenSet]) -> None:
    stream = TrainLoader(BrokenDataset(blended(sets)), BatchSampler(4, 4, 0, 1), 4).batches(0)  # type: ignore[arg-type]
    assert len(list(islice(stream, 2))) == 2
    with pytest.raises(OSError, match="the disk is gone"):
        next(stream)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_reading_ahead_is_bounded_and_closing_ends_the_thread(sets: list[TokenSet]) -> None:
    broken = BrokenDataset(blended(sets))
    broken.calls = 100
    stream = TrainLoader(broken, BatchSampler(4, 4, 0, 1), 3).batches(0)  # type: ignore[arg-type]
    next(stream)
    stream.close()
    assert broken.calls <= 100 + 1 + 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_batches_are_let_go(sets: list[TokenSet]) -> None:
    """Nothing of the loader holds a batch that was handed over, neither while it is used nor later."""
    stream = TrainLoader(blended(sets), BatchSampler(4, 8, 0, 1), 3).batches(0)
    for _ in range(20):
        batch = next(stream)
        arrays = [weakref.ref(batch[0].tokens), weakref.ref(batch[0].tokens.base)]
        del batch
        assert [array() for array in arrays] == [None, None]
    stream.close()


def test_memory_does_not_grow(make_set: MakeSet) -> None:
    large = make_set("large", [60_000], np.arange(60_000) % 999)
    dataset = BlendedDataset(
        [large], [1], order="permuted", seq_length=1024, seed=1, train_samples=9, rules=DocumentRules()
    )
    stream = TrainLoader(dataset, BatchSampler(8, 32, 0, 1), 2).batches(0)  # 64 KiB a batch
    next(stream)
    tracemalloc.start()
    for _ in range(100):
        next(stream)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    stream.close()
    batch_bytes = 2 * 1025 * 32
    assert held < 4 * batch_bytes
    assert peak < 6 * batch_bytes


def test_the_kernel_is_told_a_batch_ahead(sets: list[TokenSet]) -> None:
    """What is announced is what is read, in its order, and one batch further."""

    class Announced(BrokenDataset):
        def __init__(self, dataset: BlendedDataset) -> None:
            super().__init__(dataset)
            self.events: list[tuple[str, list[list[int]]]] = []

        def prefetch(self, *arguments: np.ndarray) -> None:
            self.events.append(("prefetch", [one.tolist() for one in arguments]))
            super().prefetch(*arguments)

        def gather(self, *arguments: np.ndarray) -> object:
            self.events.append(("gather", [one.tolist() for one in arguments]))
            return self.dataset.gather(*arguments)

    announced = Announced(blended(sets))
    stream = TrainLoader(announced, BatchSampler(2, 4, 1, 2), 1).batches(0)  # type: ignore[arg-type]
    for _ in range(5):
        next(stream)
    stream.close()
    kinds = [kind for kind, _ in announced.events]
    assert kinds[:4] == ["prefetch", "prefetch", "gather", "prefetch"]
    told = [what for kind, what in announced.events if kind == "prefetch"]
    read_ = [what for kind, what in announced.events if kind == "gather"]
    assert told[: len(read_)] == read_
    assert len(told) == len(read_) + 1


def test_the_interpreter_exits_with_a_stream_still_open(sets: list[TokenSet]) -> None:
    program = f"""
from pathlib import Path
from megatron_ext.data.blend import BlendedDataset
from megatron_ext.data.indexed import IndexedDataset
from megatron_ext.data.loader import TrainLoader
from megatron_ext.data.sampler import BatchSampler
from megatron_ext.data.samples import DocumentRules, TokenSet
from megatron_ext.errors import DataError
dataset = IndexedDataset(Path({str(sets[2].dataset.prefix)!r}))
blended = BlendedDataset([TokenSet("set", dataset, 0, 1, None)], [1], order="permuted", seq_length=8, seed=1,
                         train_samples=8, rules=DocumentRules())
stream = TrainLoader(blended, BatchSampler(4, 4096, 0, 1), 8).batches(0)
next(stream)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], timeout=60, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("micro", "size", "ranks"), [(1, 4, 4), (4, 16, 2), (7, 7, 1), (50, 400, 2)])
def test_validation_reads_every_window_once_and_evenly(
    sets: list[TokenSet], micro: int, size: int, ranks: int
) -> None:
    dataset = ValidationDataset(sets, seq_length=SEQ_LENGTH, rules=DocumentRules())
    assert dataset.windows_per_set.tolist() == [8, 38, 125]
    assert dataset.num_tokens.tolist() == [60, 300, 1000]
    parts = [
        list(ValidationLoader(dataset, BatchSampler(micro, size, rank, ranks), None).batches())
        for rank in range(ranks)
    ]
    assert {len(part) for part in parts} == {-(-171 // size)}
    assert {len(batches) for part in parts for batches in part} == {size // (micro * ranks)}
    rows = [row for part in parts for batches in part for row in rows_of(batches)]
    filler = [row for row in rows if row[0] == -1]
    assert len(rows) - len(filler) == 171
    assert not any(value for row in filler for value in row[1:])
    for index, tokens in enumerate(sets):
        mine = [row for row in rows if row[0] == index]
        assert sum(row[1] for row in mine) == tokens.num_tokens - 1
        text = tokens.dataset.read(0).tolist()
        expected = [text[i : i + 9] + [0] * (9 - len(text[i : i + 9])) for i in range(0, len(text) - 1, 8)]
        assert sorted(list(row[2:]) for row in mine) == sorted(expected)


def test_a_short_validation_samples_all_sets_evenly(sets: list[TokenSet]) -> None:
    dataset = ValidationDataset(sets, seq_length=SEQ_LENGTH, rules=DocumentRules())
    loader = ValidationLoader(dataset, BatchSampler(2, 8, 0, 1), 5)
    rows = [row for batches in loader.batches() for row in rows_of(batches)]
    assert len(rows) == 40
    counts = np.bincount([row[0] for row in rows], minlength=3)
    assert np.abs(counts - 40 * np.array([8, 38, 125]) / 171).max() < 1
    assert ValidationLoader(dataset, BatchSampler(2, 8, 0, 1), 1000).num_batches == 22


def test_validation_marks_documents_too(make_set: MakeSet) -> None:
    tokens = make_set("set", [6], np.array([1, 2, EOD, 4, 5, EOD]))
    rules = DocumentRules(eod_id=EOD, eod_mask_loss=True, mark_boundaries=True)
    dataset = ValidationDataset([tokens], seq_length=4, rules=rules)
    (batches,) = ValidationLoader(dataset, BatchSampler(2, 2, 0, 1), None).batches()
    assert batches[0].tokens.tolist() == [[1, 2, EOD, 4, 5], [5, EOD, 0, 0, 0]]
    assert batches[0].loss_mask is not None
    assert batches[0].loss_mask.tolist() == [[1, 1, 0, 1], [1, 0, 0, 0]]
    assert batches[0].cu_seqlens is not None
    assert batches[0].cu_seqlens.tolist() == [0, 3, 4, 6, 8]


def test_the_loader_needs_no_torch() -> None:
    program = (
        "import sys, megatron_ext.data.build, megatron_ext.data.loader; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, cwd=Path.cwd()).returncode == 0


def test_ids_outside_the_vocabulary_are_refused(make_set: MakeSet) -> None:
    sets = [make_set("good", [40], np.arange(40) % 6), make_set("bad", [40], np.arange(40) % 6 + 2)]
    for vocab_size, error in ((8, None), (7, "dataset bad has the token id 7, but model.vocab_size is 7")):
        validation = ValidationDataset(sets, seq_length=SEQ_LENGTH, rules=DocumentRules())
        train = BlendedDataset(
            sets,
            [0.5, 0.5],
            order="permuted",
            seq_length=SEQ_LENGTH,
            seed=1,
            train_samples=99,
            rules=DocumentRules(),
        )
        sampler = BatchSampler(2, 16, 0, 1)
        readers = [
            ValidationLoader(validation, sampler, None, vocab_size).batches(),
            TrainLoader(train, sampler, 1, vocab_size).batches(0),
        ]
        for reader in readers:
            if error is None:
                next(iter(reader))
            else:
                with pytest.raises(DataError, match=error):
                    next(iter(reader))
