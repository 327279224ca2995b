"""Files of (key, document): the keys of a part's documents, sorted, so that any range of keys is one slice."""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from megatron_ext.corpus.duplicates.keys import NO_KEY
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

    def read(self) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
        """Ascending keys, and their documents counted within the part; mapped rather than read.

        Raises:
            CorpusError: it is no such file, or was cut short.
        """
        try:
            size = self.path.stat().st_size
            mapped = np.memmap(self.path, np.uint8, "r") if size >= _HEADER.size else np.empty(0, np.uint8)
        except OSError as error:
            raise CorpusError(f"{self.path}: cannot be read: {error.strerror}") from error
        raw = np.asarray(mapped)
        magic, count = _HEADER.unpack(raw[: _HEADER.size].tobytes()) if len(raw) else (b"", 0)
        end_of_keys = _HEADER.size + count * _KEY.itemsize
        if magic != _MAGIC or len(raw) != end_of_keys + count * _DOCUMENT.itemsize:
            raise CorpusError(
                f"{self.path}: not a complete file of keys; delete it and build the corpus again"
            )
        return raw[_HEADER.size : end_of_keys].view(_KEY), raw[end_of_keys:].view(_DOCUMENT)
