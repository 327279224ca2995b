"""Which documents validate: in each set those with the smallest hashes, so that the text alone decides."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from megatron_ext.corpus.manifest import ValidationConfig

Hashes = NDArray[np.uint64]  # the first 64 bits of the hash of each document's text


class HeldOut:
    """The smallest hashes of a set's kept documents; memory is ``max_documents`` of them."""

    def __init__(self, config: ValidationConfig) -> None:
        self._config = config
        self._documents = 0
        self._smallest: Hashes = np.empty(0, np.uint64)

    def add(self, hashes: Hashes) -> None:
        """Take in some documents, in any order."""
        self._documents += len(hashes)
        self._smallest = np.sort(np.concatenate([self._smallest, hashes]))[: self._config.max_documents]

    def hashes(self) -> Hashes:
        """Those of the documents that validate, sorted: the share, between the bounds, of the set."""
        config, documents = self._config, self._documents
        wanted = min(max(round(config.share * documents), config.min_documents), config.max_documents)
        count = min(wanted, int(config.max_share * documents)) if config.share > 0 else 0
        return self._smallest[:count]


def union(sets: Iterable[Hashes]) -> Hashes:
    """Hashes of all sets, sorted: a text of these is trained in no set, whatever else becomes of it."""
    return np.unique(np.concatenate([np.empty(0, np.uint64), *sets]))


def among(hashes: Hashes, sorted_hashes: Hashes) -> NDArray[np.bool_]:
    """Whether each of ``hashes`` is one of the others."""
    if not len(sorted_hashes):
        return np.zeros(len(hashes), bool)
    places = np.minimum(np.searchsorted(sorted_hashes, hashes), len(sorted_hashes) - 1)
    found: NDArray[np.bool_] = sorted_hashes[places] == hashes
    return found
