"""How often each document is kept: once for its cluster of duplicates, or oftener if the cluster is large."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from megatron_ext import _C
from megatron_ext.corpus.duplicates.grouping import links
from megatron_ext.corpus.duplicates.records import RecordFile

# FineWeb2's "rehydration", arXiv 2506.20920: (from this cluster size on, this many copies of the document kept).
REHYDRATION = ((1, 1), (2, 2), (3, 3), (5, 5), (100, 8), (1000, 1))
_BLOCK = 1 << 20  # documents that are looked up at a time


class DuplicateClusters:
    """Clusters of documents that are joined by shared keys, directly or through others.

    The result depends on which documents share keys only: not on the order of files, parts or workers. 4 bytes a
    document while joining, 8 while sizes are counted.

    Args:
        num_documents: in all parts, below 2^32.
    """

    def __init__(self, num_documents: int) -> None:
        self._clusters = _C.Clusters(num_documents)

    def join(self, files: Sequence[RecordFile], memory_bytes: int = 1 << 30) -> None:
        """Join the documents of each key.

        Args:
            files: of all parts; content hashes, band hashes, or first the ones and then the others.
            memory_bytes: for sorting; less takes more steps, not another result.

        Raises:
            CorpusError: a file is not what it should be.
        """
        for first, second in links(files, memory_bytes):
            self._clusters.join(first, second)

    def sizes(self) -> NDArray[np.uint32]:
        """uint32 ``[num_documents]``: a cluster's size at its first document, 0 at all others."""
        return self._clusters.sizes()

    def copies(self, rehydrate: bool = False) -> NDArray[np.uint8]:
        """uint8 ``[num_documents]``: how often each is kept.

        Of each cluster the first document is kept, which is the first in the manifest's order; the longest would
        favour the one with the most boilerplate around it.

        Args:
            rehydrate: repeat it by the size of its cluster, see ``REHYDRATION``.
        """
        sizes = self.sizes()
        if not rehydrate:
            return (sizes > 0).astype(np.uint8)
        copies = np.empty(len(sizes), np.uint8)
        for start in range(0, len(sizes), _BLOCK):
            copies[start : start + _BLOCK] = rehydrated(sizes[start : start + _BLOCK])
        return copies


def rehydrated(sizes: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """uint8: how often FineWeb2 keeps the document that stands for a cluster of each size; 0 for size 0."""
    lower_bounds = np.array([0, *(size for size, _ in REHYDRATION)], np.uint32)
    copies = np.array([0, *(number for _, number in REHYDRATION)], np.uint8)
    return copies[np.searchsorted(lower_bounds, sizes, side="right") - 1]
