"""Samples out of the page cache, and what says where they lie: sample index and shuffle."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from data_blend import BATCH, PAGES
from megatron.core.datasets import helpers
from megatron_datasets import gpt_dataset
from timing import Figure, best, fresh, in_turn, rates

from megatron_ext import _C
from megatron_ext.data.indexed import IndexedDataset, IndexedDatasetWriter
from megatron_ext.data.samples import TokenSet, window_samples

SEQ_LENGTH = 4096
DOCUMENTS, DOCUMENT_TOKENS, NUM_SAMPLES = 20_000, 800, 3904  # one epoch
INDEXED_DOCUMENTS, INDEXED_DOCUMENT_TOKENS = 10_000_000, 1000
SHUFFLED = 100_000_000


def figures(folder: Path, fraction: float) -> list[Figure]:
    """All figures of samples; a shuffle is of this fraction of them."""
    return [*gathering(folder / "corpus"), sample_index(), *shuffle(round(SHUFFLED * fraction))]


def gathering(prefix: Path) -> list[Figure]:
    """Random samples in batches, as they are stored and as the peer hands them over, beside its one by one."""
    tokens = np.random.default_rng(0).integers(0, 32_000, DOCUMENTS * DOCUMENT_TOKENS, dtype=np.uint16)
    with IndexedDatasetWriter(prefix, np.uint16) as writer:
        writer.add_documents(tokens, np.full(DOCUMENTS, DOCUMENT_TOKENS))
    dataset = IndexedDataset(prefix)
    samples = _C.SampleGather(
        [window_samples(TokenSet("corpus", dataset, 0, DOCUMENTS, None), SEQ_LENGTH, 0)]
    )
    sets, batches = np.zeros(BATCH, np.int32), np.arange(NUM_SAMPLES).reshape(-1, BATCH)
    peer = gpt_dataset(prefix, SEQ_LENGTH, NUM_SAMPLES)

    def ours(widened: bool) -> None:
        for batch in batches:
            rows, _ = samples.gather(sets, batch)
            if widened:
                # Rows of tokens and of labels, which lie apart as torch.stack leaves them.
                torch.from_numpy(rows[:, :-1].astype(np.int64))
                torch.from_numpy(rows[:, 1:].astype(np.int64))

    def theirs() -> None:
        for index in range(NUM_SAMPLES):
            peer[index]

    name = f"batches of {BATCH} × {SEQ_LENGTH} from page cache"
    return [
        rates(f"{name}, uint16", "samples/s", NUM_SAMPLES, partial(ours, False), theirs),
        rates(f"{name}, int64 tokens and labels", "samples/s", NUM_SAMPLES, partial(ours, True), theirs),
    ]


def sample_index() -> Figure:
    """megatron-core's array, equal; in permuted order none is built."""
    lengths = np.full(INDEXED_DOCUMENTS, INDEXED_DOCUMENT_TOKENS, np.int32)
    order = np.random.default_rng(0).permutation(INDEXED_DOCUMENTS).astype(np.int32)
    tokens = INDEXED_DOCUMENTS * INDEXED_DOCUMENT_TOKENS
    ours = partial(_C.build_sample_index, lengths, order, SEQ_LENGTH, (tokens - 1) // SEQ_LENGTH)
    theirs = partial(helpers.build_sample_idx, lengths, order, SEQ_LENGTH, 1, tokens)
    if not np.array_equal(ours(), theirs()):
        raise SystemExit("the sample index differs from megatron-core's")
    name = f"sample index, {INDEXED_DOCUMENTS / 1e6:g} M documents, {tokens / 1e9:g} B tokens"
    return Figure(name, "s", *in_turn(ours, theirs))


def shuffle(samples: int) -> list[Figure]:
    """A permutation that is computed where it is asked for, beside one that is shuffled and stored as a whole."""
    indices = np.arange(samples)
    name = f"shuffled order of {samples / 1e6:g} M samples"
    first = fresh(_our_first_indices, samples)
    theirs = fresh(_their_order, samples)
    ours = best([first, fresh(_our_first_indices, samples)])
    whole = partial(_C.permuted, indices, samples, 1)
    return [
        Figure(f"{name}: until the first batch", "s", ours.seconds, theirs.seconds),
        Figure(f"{name}: memory until then", "MB", max(ours.megabytes, PAGES), theirs.megabytes),
        rates(f"{name}: all of it", "indices/s", samples, whole, partial(_their_order, samples)),
    ]


def _our_first_indices(samples: int) -> None:
    _C.permuted(np.arange(BATCH), samples, 1)


def _their_order(samples: int) -> None:
    order = np.arange(samples, dtype=np.uint32)
    np.random.RandomState(0).shuffle(order)
