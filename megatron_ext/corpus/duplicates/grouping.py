"""Which documents share a key, in bounded memory: the keys of all parts, one range after the other."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from megatron_ext.corpus.duplicates.records import RecordFile

# Keys and documents of a range, their order, and copies of both in that order, 8 bytes each; twice while two
# slices are put together.
BYTES_PER_RECORD = 80
_KEY_SPACE = 1 << 64

Keys = NDArray[np.uint64]
Documents = NDArray[np.int64]


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
    limit = max(memory_bytes // BYTES_PER_RECORD, 2)
    total = sum(file.num_records() for file in files)
    num_ranges = -(-2 * total // limit) or 1
    bounds = [_KEY_SPACE * i // num_ranges for i in range(num_ranges + 1)]
    for low, high in pairwise(bounds):
        carried = np.empty(0, np.uint64), np.empty(0, np.int64)
        for keys, documents in _filled(_slices(files, low, high, limit // 2), limit // 2):
            carried, found = _grouped(
                np.concatenate([carried[0], keys]), np.concatenate([carried[1], documents])
            )
            yield found


def _slices(
    files: Sequence[RecordFile], low: int, high: int, longest: int
) -> Iterator[tuple[Keys, Documents]]:
    """The records of each file whose keys are in ``[low, high)``, in slices of at most ``longest``."""
    for file in files:
        keys = file.keys()
        start = int(np.searchsorted(keys, np.uint64(low)))
        end = len(keys) if high == _KEY_SPACE else int(np.searchsorted(keys, np.uint64(high)))
        for first in range(start, end, longest):
            last = min(first + longest, end)
            yield np.array(keys[first:last]), file.documents(first, last)


def _filled(slices: Iterator[tuple[Keys, Documents]], least: int) -> Iterator[tuple[Keys, Documents]]:
    """Slices put together until they have ``least`` records, so that many small files are sorted at once."""
    waiting: list[tuple[Keys, Documents]] = []
    count = 0
    for one in slices:
        waiting.append(one)
        count += len(one[0])
        if count >= least:
            yield np.concatenate([keys for keys, _ in waiting]), np.concatenate([docs for _, docs in waiting])
            waiting, count = [], 0
    if waiting:
        yield np.concatenate([keys for keys, _ in waiting]), np.concatenate([docs for _, docs in waiting])


def _grouped(keys: Keys, documents: Documents) -> tuple[tuple[Keys, Documents], tuple[Documents, Documents]]:
    """One record of each key, and links that connect the documents of each."""
    order = np.argsort(keys)
    keys, documents = keys[order], documents[order]
    same = keys[1:] == keys[:-1]
    first_of_key = np.concatenate([np.ones(min(len(keys), 1), bool), ~same])
    return (keys[first_of_key], documents[first_of_key]), (documents[:-1][same], documents[1:][same])
