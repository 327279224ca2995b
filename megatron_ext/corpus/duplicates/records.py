"""Files of (key, document): the keys of a part's documents, sorted, so that any range of keys is one slice."""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron_ext.corpus.duplicates.minhash import NO_KEY
from megatron_ext.errors import CorpusError
from megatron_ext.utils.atomic import atomic_file

_MAGIC = b"MGTXKEYS"
_HEADER = struct.Struct("<8sQ")  # magic, number of records; then all keys (u64), then all documents (u32)
_KEY = np.dtype("<u8")
_DOCUMENT = np.dtype("<u4")


def write_records(path: Path, keys: NDArray[np.uint64]) -> None:
    """Write the keys of a part's documents to ``path``, complete or not at all, without those that are ``NO_KEY``.

    The order of equal keys is that of their documents, so the same keys always make the same bytes.

    Args:
        path: a file of this part.
        keys: uint64 ``[documents]`` or ``[documents, keys of each]``; row i is document i of the part.
    """
    num_documents = len(keys)
    per_document = keys.size // num_documents if num_documents else 0
    flat = keys.reshape(-1)
    documents = np.repeat(np.arange(num_documents, dtype=_DOCUMENT), per_document)
    present = flat != NO_KEY
    flat, documents = flat[present], documents[present]
    order = np.argsort(flat, kind="stable")
    with atomic_file(path) as stream:
        stream.write(_HEADER.pack(_MAGIC, len(flat)))
        stream.write(flat[order].astype(_KEY, copy=False).data)
        stream.write(documents[order].data)


@dataclass(frozen=True)
class RecordFile:
    """A file of ``write_records``, and where its part's documents are among all documents."""

    path: Path
    first_document: int

    def num_records(self) -> int:
        """Read from the header.

        Raises:
            CorpusError: it is no such file, or was cut short.
        """
        try:
            with self.path.open("rb") as stream:
                header = stream.read(_HEADER.size)
            size = self.path.stat().st_size
        except OSError as error:
            raise CorpusError(f"{self.path}: cannot be read: {error.strerror}") from error
        magic, count = _HEADER.unpack(header) if len(header) == _HEADER.size else (b"", 0)
        if magic != _MAGIC or size != _HEADER.size + count * (_KEY.itemsize + _DOCUMENT.itemsize):
            raise CorpusError(
                f"{self.path}: not a complete file of keys; delete it and build the corpus again"
            )
        return int(count)

    def keys(self) -> NDArray[np.uint64]:
        """Ascending, mapped rather than read."""
        count = self.num_records()
        return self._mapped(_KEY, _HEADER.size, count)

    def documents(self, start: int, end: int) -> NDArray[np.int64]:
        """Of records ``start`` to ``end``, counted through all parts."""
        count = self.num_records()
        local = self._mapped(_DOCUMENT, _HEADER.size + count * _KEY.itemsize, count)[start:end]
        return local.astype(np.int64) + self.first_document

    def _mapped(self, dtype: np.dtype[Any], offset: int, count: int) -> NDArray[Any]:
        if count == 0:  # mmap refuses no bytes
            return np.empty(0, dtype)
        return np.memmap(self.path, dtype, "r", offset, (count,))
