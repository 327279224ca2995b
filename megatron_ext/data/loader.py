"""Micro-batches for one data-parallel rank: training without an end, prefetched; validation once through."""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from megatron_ext.data.blend import BlendedDataset, ValidationDataset
from megatron_ext.data.position import DataPosition
from megatron_ext.data.sampler import BatchSampler
from megatron_ext.data.samples import DocumentRules
from megatron_ext.data.stages import StagedBlend
from megatron_ext.errors import DataError

Item = TypeVar("Item")


@dataclass(frozen=True)
class MicroBatch:
    """One micro-batch as it leaves the disk; to widen it and to split labels off is left to the device.

    Attributes:
        tokens: [micro_batch_size, seq_length + 1], uint16 or int32 as on disk: inputs are ``[:, :-1]``,
            labels ``[:, 1:]``.
        loss_mask: uint8 [micro_batch_size, seq_length] over the labels, 1 where the loss counts; None:
            everywhere.
        cu_seqlens: int32 [documents + 1], from 0 to ``micro_batch_size * seq_length``: where documents start
            in the flattened inputs, namely at each row and after each end-of-document input. None unless
            asked for.
        dataset_index: int32 [micro_batch_size], the set each row is from; -1: a filler row, masked
            altogether.
    """

    tokens: NDArray[Any]
    loss_mask: NDArray[np.uint8] | None
    cu_seqlens: NDArray[np.int32] | None
    dataset_index: NDArray[np.int32]


class TrainLoader:
    """This rank's micro-batches of one global batch after the other, read ahead in a thread.

    Args:
        dataset: what to read.
        sampler: which part of it this rank gets.
        prefetch_batches: global batches to read ahead, at least 1.
        vocab_size: of the model; a token id outside of it is a DataError. None: not checked.
        saved: counters of the checkpoint that the run resumes from, where they are usable.
    """

    def __init__(
        self,
        dataset: BlendedDataset,
        sampler: BatchSampler,
        prefetch_batches: int,
        vocab_size: int | None = None,
        saved: DataPosition | None = None,
    ) -> None:
        self.dataset = dataset
        self.sampler = sampler
        self.prefetch_batches = prefetch_batches
        self.vocab_size = vocab_size
        self.saved = saved
        self._consumed: StagedBlend | None = None

    def batches(self, consumed_samples: int) -> Generator[list[MicroBatch], None, None]:
        """Batches from a position on, without an end. Closing the generator ends its thread.

        Yields:
            This rank's micro-batches of the next global batch. An error of the reading thread is raised here.
        """
        reader = _Reader(self, self.dataset.blend(consumed_samples, self.saved), consumed_samples)
        return _prefetched(reader.next_batch, self.prefetch_batches)

    def position(self, consumed_samples: int) -> DataPosition:
        """What a checkpoint keeps of a position."""
        return self.dataset.position(self._at(consumed_samples))

    def consumed_by_set(self, consumed_samples: int) -> NDArray[np.int64]:
        """Samples of each set among the first ``consumed_samples`` of the blend, int64 [sets]."""
        counters = self._at(consumed_samples).counters()
        return counters.before + counters.drawn

    def _at(self, consumed_samples: int) -> StagedBlend:
        """The blend at a position; the one that ``batches`` draws from is ahead of it and is left alone.

        It follows what is consumed by drawing what came since the last call, some 30 ms for a million samples.
        """
        if self._consumed is None:
            start = 0 if self.saved is None else self.saved.consumed_samples
            self._consumed = self.dataset.blend(start, self.saved)
        self._consumed.seek(consumed_samples)
        return self._consumed


class _Reader:
    """Reads one batch after the other and keeps none.

    It draws one batch ahead, so that the kernel reads that one while this one is copied.
    """

    def __init__(self, loader: TrainLoader, blend: StagedBlend, position: int) -> None:
        self.dataset, self.sampler, self.vocab_size = loader.dataset, loader.sampler, loader.vocab_size
        self.blend = blend
        self.position = position
        self.drawn = self._draw()

    def next_batch(self) -> list[MicroBatch]:
        sets, samples = self.drawn
        self.drawn = self._draw()
        tokens, valid = self.dataset.gather(sets, samples)
        _check_ids(tokens, sets, self.dataset, self.vocab_size)
        return _micro_batches(tokens, valid, sets, self.sampler.micro_batch_size, self.dataset.rules)

    def _draw(self) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        size = self.sampler.batch_size(self.position)
        sets, samples = self.blend.draw(size)
        mine = self.sampler.positions(self.position).reshape(-1) - self.position
        sets, samples = sets[mine], samples[mine]
        self.position += size
        self.dataset.prefetch(sets, samples)
        return sets, samples


class ValidationLoader:
    """This rank's part of the held-out windows, each of them once.

    Every rank gets the same number of micro-batches: filler rows complete the last global batch.

    Args:
        dataset: what to read.
        sampler: which part of it this rank gets.
        eval_iters: read so many global batches at most, of windows spread evenly over all sets; None: all
            windows.
        vocab_size: as in :class:`TrainLoader`.
    """

    def __init__(
        self,
        dataset: ValidationDataset,
        sampler: BatchSampler,
        eval_iters: int | None,
        vocab_size: int | None = None,
    ) -> None:
        self.dataset = dataset
        self.sampler = sampler
        self.vocab_size = vocab_size
        size = sampler.global_batch_size
        total = dataset.num_windows
        needed = -(-total // size)
        self.num_batches = needed if eval_iters is None else min(eval_iters, needed)
        rows = self.num_batches * size
        if rows < total:
            self._windows = np.arange(rows, dtype=np.int64) * total // rows
        else:
            self._windows = np.full(rows, -1, dtype=np.int64)
            self._windows[:total] = np.arange(total)

    def batches(self) -> Iterator[list[MicroBatch]]:
        """Batches of one pass.

        Yields:
            This rank's micro-batches of the next global batch.
        """
        size = self.sampler.micro_batch_size
        for batch in range(self.num_batches):
            mine = self.sampler.positions(batch * self.sampler.global_batch_size).reshape(-1)
            tokens, valid, sets = self.dataset.gather(self._windows[mine])
            _check_ids(tokens, sets, self.dataset, self.vocab_size)
            yield _micro_batches(tokens, valid, sets, size, self.dataset.rules)


def _check_ids(
    tokens: NDArray[Any],
    sets: NDArray[np.int32],
    dataset: BlendedDataset | ValidationDataset,
    vocab_size: int | None,
) -> None:
    """Refuse ids that the embedding lacks: split over ranks, it would look them up as zeros and say nothing."""
    if vocab_size is None or tokens.max() < vocab_size:
        return
    row = int(tokens.max(axis=1).argmax())
    raise DataError(
        f"dataset {dataset.names[sets[row]]} has the token id {tokens[row].max()}, but "
        f"model.vocab_size is {vocab_size}; preprocess its text with this model's tokenizer"
    )


def _micro_batches(
    tokens: NDArray[Any],
    valid: NDArray[np.int32],
    dataset_index: NDArray[np.int32],
    size: int,
    rules: DocumentRules,
) -> list[MicroBatch]:
    batches = []
    for start in range(0, len(tokens), size):
        rows = slice(start, start + size)
        inputs = tokens[rows, :-1]
        batches.append(
            MicroBatch(
                tokens=tokens[rows],
                loss_mask=_loss_mask(inputs, valid[rows], rules),
                cu_seqlens=_document_starts(inputs, rules) if rules.mark_boundaries else None,
                dataset_index=dataset_index[rows],
            )
        )
    return batches


def _loss_mask(
    inputs: NDArray[Any], valid: NDArray[np.int32], rules: DocumentRules
) -> NDArray[np.uint8] | None:
    """Masks labels behind the end of the text and, like megatron-core, the label that follows an EOD *input*.

    That label is the first token of an unrelated document; predicting EOD itself stays part of the loss.
    """
    seq_length = inputs.shape[1]
    if not rules.eod_mask_loss and bool(np.all(valid == seq_length + 1)):
        return None
    mask = np.arange(seq_length) < valid[:, None] - 1
    if rules.eod_mask_loss:
        mask &= inputs != rules.eod_id
    return mask.astype(np.uint8)


def _document_starts(inputs: NDArray[Any], rules: DocumentRules) -> NDArray[np.int32]:
    rows = np.arange(0, inputs.size + 1, inputs.shape[1])
    after_eod = np.flatnonzero(inputs.reshape(-1) == rules.eod_id) + 1
    return np.union1d(rows, after_eod).astype(np.int32)


def _prefetched(read: Callable[[], Item], depth: int) -> Generator[Item, None, None]:
    """Call ``read`` in one thread, ``depth`` results ahead.

    The thread only ever has ``depth`` calls to make, so it never waits for the consumer: nothing can hang,
    neither here nor when the interpreter exits with the generator still open.
    """
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
    try:
        ahead: deque[Future[Item]] = deque(thread.submit(read) for _ in range(depth))
        while True:
            ahead.append(thread.submit(read))
            yield ahead.popleft().result()  # handed over, not kept
    finally:
        thread.shutdown(wait=True, cancel_futures=True)
