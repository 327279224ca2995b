"""What an indexed dataset holds: what ``tools/inspect_dataset.py`` shows."""

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron_ext.data.indexed import DatasetStatistics, IndexedDataset, bin_path, idx_path
from megatron_ext.errors import DataError
from megatron_ext.utils.console import progress

HEADER = struct.Struct("<9sQBQQ")  # csrc/indexed_format.h
MAGIC = b"MMIDIDX\0\0"
BYTES_PER_SEQUENCE, BYTES_PER_DOCUMENT_INDEX = 12, 8
INTEGERS = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 8: "uint16"}
# GPT-NeoX writes the codes 6 and 7 the other way round than Megatron-LM. Name of the dtype by bytes of a value.
FLOATS = {
    6: {4: "float32 by GPT-NeoX's table of dtypes", 8: "float64 by Megatron-LM's table of dtypes"},
    7: {4: "float32 by Megatron-LM's table of dtypes", 8: "float64 by GPT-NeoX's table of dtypes"},
}
HASH_BYTES = 16 << 20  # of a file in memory at a time; a multiple of every token's size


@dataclass(frozen=True)
class Header:
    """The first 34 bytes of an .idx.

    Attributes:
        version: of the format, 1.
        code: of the dtype.
        num_sequences: N.
        num_document_indices: D, one more than documents.
    """

    version: int
    code: int
    num_sequences: int
    num_document_indices: int

    @property
    def dtype(self) -> str:
        """Name of the dtype; both names of a float, whose code depends on the program that wrote it."""
        return INTEGERS.get(self.code) or ", ".join(FLOATS[self.code].values())

    @property
    def holds_floats(self) -> bool:
        """Values that cannot be tokens; `IndexedDataset` refuses them."""
        return self.code in FLOATS


@dataclass(frozen=True)
class Lengths:
    """Tokens of the documents."""

    minimum: int
    median: float
    mean: float
    maximum: int
    empty: int  # documents without a token


@dataclass(frozen=True)
class Description:
    """A dataset from outside: all of it but the tokens.

    Attributes:
        dtype: its name; that of floats says whose table of dtypes it follows, as far as the sizes tell.
        num_tokens: tokens, or values of floats.
        lengths: of the documents; None if there are none, and for floats.
    """

    prefix: Path
    header: Header
    dtype: str
    bin_bytes: int
    idx_bytes: int
    num_tokens: int
    lengths: Lengths | None
    statistics: DatasetStatistics | None


@dataclass(frozen=True)
class Verified:
    """What only a reading of both files in full can tell."""

    bin_sha256: str
    idx_sha256: str
    lowest_id: int | None  # None: no tokens
    highest_id: int | None


def read_header(prefix: Path) -> Header:
    """The header of a dataset's ``.idx``, also of one that holds floats.

    Raises:
        DataError: the file is missing, too short, or of a format we do not know.
    """
    path = idx_path(prefix)
    try:
        with path.open("rb") as stream:
            content = stream.read(HEADER.size)
    except OSError as error:
        raise DataError(f"{path}: cannot be opened: {error.strerror}") from error
    if len(content) < HEADER.size:
        raise DataError(f"{path}: has {len(content)} bytes, less than the header's {HEADER.size}")
    magic, version, code, num_sequences, num_document_indices = HEADER.unpack(content)
    if magic != MAGIC:
        raise DataError(f"{path}: does not start as an .idx file does; was it made by a Megatron tool?")
    if version != 1:
        raise DataError(f"{path}: format version {version} is unknown; only 1 is")
    if code not in INTEGERS and code not in FLOATS:
        raise DataError(f"{path}: dtype code {code} is unknown; 1 to 8 are dtypes")
    return Header(version, code, num_sequences, num_document_indices)


def describe(prefix: Path) -> Description:
    """Describe a dataset, after checking every length, offset and document index of its ``.idx``.

    Of a dataset of floats only the lengths and the sizes are checked.

    Raises:
        DataError: a file is missing or damaged, or the two are not a pair.
    """
    header = read_header(prefix)
    try:
        bin_bytes, idx_bytes = (path(prefix).stat().st_size for path in (bin_path, idx_path))
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be opened: {error.strerror}") from error
    lengths = None
    if header.holds_floats:
        _check_size(idx_path(prefix), idx_bytes, header)
        dtype, num_tokens = _floats(prefix, header, bin_bytes)
    else:
        dataset = IndexedDataset(prefix)
        dataset.verify()
        dtype, num_tokens, lengths = header.dtype, dataset.num_tokens, _lengths(dataset)
    return Description(
        prefix=prefix,
        header=header,
        dtype=dtype,
        bin_bytes=bin_bytes,
        idx_bytes=idx_bytes,
        num_tokens=num_tokens,
        lengths=lengths,
        statistics=DatasetStatistics.read(prefix),
    )


def _check_size(path: Path, size: int, header: Header) -> None:
    announced = (
        HEADER.size
        + header.num_sequences * BYTES_PER_SEQUENCE
        + header.num_document_indices * BYTES_PER_DOCUMENT_INDEX
    )
    if size != announced or header.num_document_indices == 0:
        raise DataError(
            f"{path}: has {size:,} bytes, but its header announces {announced:,} with "
            f"{header.num_document_indices:,} document indices (at least 1): it is cut short or damaged"
        )


def _floats(prefix: Path, header: Header, bin_bytes: int) -> tuple[str, int]:
    """Name of the dtype and number of values: their size, which the code alone does not tell, follows from both."""
    lengths = np.fromfile(idx_path(prefix), "<i4", header.num_sequences, offset=HEADER.size)
    values = int(lengths.sum(dtype=np.int64))
    if values == 0 and bin_bytes == 0:
        return header.dtype, 0
    for size, name in FLOATS[header.code].items():
        if (lengths >= 0).all() and values * size == bin_bytes:
            return name, values
    raise DataError(
        f"{bin_path(prefix)}: has {bin_bytes:,} bytes, but {idx_path(prefix)} describes {values:,} floats of 4 or "
        "8 bytes: the two files are not a pair, or one is damaged"
    )


def _lengths(dataset: IndexedDataset) -> Lengths | None:
    """Statistics over documents, each of which is one sequence or several; None if there are no documents."""
    if dataset.num_documents == 0:
        return None
    starts = np.zeros(dataset.num_sequences + 1, dtype=np.int64)
    np.cumsum(dataset.sequence_lengths, out=starts[1:])
    lengths = np.diff(starts[dataset.document_indices])
    return Lengths(
        minimum=int(lengths.min()),
        median=float(np.median(lengths)),
        mean=dataset.num_tokens / dataset.num_documents,
        maximum=int(lengths.max()),
        empty=int((lengths == 0).sum()),
    )


def read_document(prefix: Path, document: int) -> NDArray[Any]:
    """The ids of one document, with all its sequences.

    Raises:
        DataError: the dataset is damaged, holds floats, or has no such document.
    """
    dataset = IndexedDataset(prefix)
    if not 0 <= document < dataset.num_documents:
        held = f"they are 0 to {dataset.num_documents - 1}" if dataset.num_documents else "it has none"
        raise DataError(f"{prefix}: there is no document {document}; {held}")
    first, end = dataset.document_indices[document : document + 2].tolist()
    parts = [dataset.read(sequence) for sequence in range(first, end)]
    return np.concatenate([np.empty(0, dataset.dtype), *parts])


def verify(prefix: Path) -> Verified:
    """Check all that can be checked: indices, sizes, agreement with the statistics, the range of the ids.

    Raises:
        DataError: something is wrong, or the dataset holds floats.
    """
    dataset = IndexedDataset(prefix)
    dataset.verify()
    statistics = DatasetStatistics.read(prefix)
    if statistics is not None:
        statistics.check_describes(dataset)
    lowest: int | None = None
    highest: int | None = None

    def see(block: bytes) -> None:
        nonlocal lowest, highest
        ids = np.frombuffer(block, dataset.dtype)
        low, high = int(ids.min()), int(ids.max())
        lowest = low if lowest is None else min(lowest, low)
        highest = high if highest is None else max(highest, high)

    total = bin_path(prefix).stat().st_size + idx_path(prefix).stat().st_size
    with progress("verifying", total, "bytes") as advance:
        bin_sha256 = _sha256(bin_path(prefix), see, advance)
        idx_sha256 = _sha256(idx_path(prefix), None, advance)
    _check_ids(prefix, lowest, highest, statistics)
    return Verified(bin_sha256, idx_sha256, lowest, highest)


def _sha256(path: Path, see: Callable[[bytes], None] | None, advance: Callable[[int, str], None]) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while block := stream.read(HASH_BYTES):
                digest.update(block)
                if see is not None:
                    see(block)
                advance(len(block), path.name)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def _check_ids(
    prefix: Path, lowest: int | None, highest: int | None, statistics: DatasetStatistics | None
) -> None:
    if lowest is None or highest is None:
        return
    if lowest < 0:
        raise DataError(f"{bin_path(prefix)}: holds the id {lowest}; ids start at 0, preprocess again")
    if statistics is not None and highest >= statistics.tokenizer.vocab_size:
        raise DataError(
            f"{bin_path(prefix)}: holds the id {highest}, outside the tokenizer's vocabulary of "
            f"{statistics.tokenizer.vocab_size}; the file is damaged or the statistics are of another one"
        )
