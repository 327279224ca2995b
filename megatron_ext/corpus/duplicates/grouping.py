"""Which documents share a key, in bounded memory: the keys of all parts, one range after the other."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from megatron_ext.corpus.duplicates.records import RecordFile

# Of the longest slice: 64 for its key and document as they are read, put together, sorted and given out as links, and
# for their order; three times, as a batch can come to nearly two slices and meet as many records carried on.
BYTES_PER_RECORD = 192
_KEY_SPACE = 1 << 64

Keys = NDArray[np.uint64]
Documents = NDArray[np.int64]
Part = tuple[Keys, NDArray[np.uint32], int]  # keys, documents within the part, its first document


def links(files: Sequence[RecordFile], memory_bytes: int) -> Iterator[tuple[Documents, Documents]]:
    """Pairs of documents that share a key, enough of them to connect all that do.

    Keys are hashes, so equal ranges of them hold about equally many records; as many ranges are made as memory asks
    for, and of each file every range is read once. A range with more records than that holds repeated keys: of
    each, one record is carried on to the next slice.

    Args:
        files: of all parts.
        memory_bytes: what arrays may take here, apart from pages of the files, which the system may drop.

    Yields:
        Two int64 arrays of one length: document i of the first belongs with document i of the second.

    Raises:
        CorpusError: a file is not what it should be.
    """
    parts = [(*file.read(), file.first_document) for file in files]
    longest = max(memory_bytes // BYTES_PER_RECORD, 1)
    num_ranges = -(-sum(len(keys) for keys, _, _ in parts) // longest) or 1
    bounds = [_KEY_SPACE * i // num_ranges for i in range(num_ranges + 1)]
    for low, high in pairwise(bounds):
        keys, documents = np.empty(0, np.uint64), np.empty(0, np.int64)
        for batch in _batches(_slices(parts, low, high, longest), longest):
            keys = np.concatenate([keys, *(more for more, _ in batch)])
            documents = np.concatenate([documents, *(more for _, more in batch)])
            keys, documents, first, second = _grouped(keys, documents)
            yield first, second


def _slices(parts: Sequence[Part], low: int, high: int, longest: int) -> Iterator[tuple[Keys, Documents]]:
    """The records of each part whose keys are in ``[low, high)``, in slices of at most ``longest``."""
    for keys, documents, first_document in parts:
        start = int(np.searchsorted(keys, np.uint64(low)))
        end = len(keys) if high == _KEY_SPACE else int(np.searchsorted(keys, np.uint64(high)))
        for first in range(start, end, longest):
            some = slice(first, min(first + longest, end))
            yield keys[some], documents[some].astype(np.int64) + first_document


def _batches(slices: Iterator[tuple[Keys, Documents]], least: int) -> Iterator[list[tuple[Keys, Documents]]]:
    """Slices with at least ``least`` records, except for the last batch: many small parts are sorted at once."""
    batch: list[tuple[Keys, Documents]] = []
    count = 0
    for one in slices:
        batch.append(one)
        count += len(one[0])
        if count >= least:
            yield batch
            batch, count = [], 0
    if batch:
        yield batch


def _grouped(keys: Keys, documents: Documents) -> tuple[Keys, Documents, Documents, Documents]:
    """One record of each key, and links that connect the documents of each."""
    order = np.argsort(keys)
    keys, documents = keys[order], documents[order]
    same = keys[1:] == keys[:-1]
    leads = np.concatenate([np.ones(min(len(keys), 1), bool), ~same])
    return keys[leads], documents[leads], documents[:-1][same], documents[1:][same]
