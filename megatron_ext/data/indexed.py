"""Indexed datasets: ``<prefix>.bin`` (tokens), ``.idx`` (where they lie) and ``.json`` (statistics).

The first two are Megatron-LM's format, byte for byte. The third is ours and optional: what ids do not tell.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from megatron_ext import _C
from megatron_ext.errors import DataError
from megatron_ext.utils.atomic import atomic_file, write_text

UINT16_VOCABULARY_LIMIT = 65_500  # megatron-core's, some ids below 2^16


def token_dtype(vocab_size: int) -> np.dtype[Any]:
    """The dtype that megatron-core stores ids of a vocabulary of this size with: uint16 or int32."""
    return np.dtype(np.uint16 if vocab_size < UINT16_VOCABULARY_LIMIT else np.int32)


def bin_path(prefix: Path) -> Path:
    """The file of tokens; the prefix may hold dots of its own."""
    return Path(f"{prefix}.bin")


def idx_path(prefix: Path) -> Path:
    """The file that says where sequences and documents lie."""
    return Path(f"{prefix}.idx")


def statistics_path(prefix: Path) -> Path:
    """The file of `DatasetStatistics`."""
    return Path(f"{prefix}.json")


def dataset_prefix(path: Path) -> Path:
    """The prefix of a dataset that is named by itself or by its ``.bin`` or ``.idx`` (so by a shell's glob)."""
    return path.with_suffix("") if path.suffix in (".bin", ".idx") else path


@contextlib.contextmanager
def writing_dataset(prefix: Path) -> Iterator[None]:
    """Turn what the file system says inside the block, such as a full disk, into an error that names the dataset."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{prefix}: cannot be written: {error}") from error


@contextlib.contextmanager
def atomic_dataset(prefix: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Yield temporary ``.bin`` and ``.idx`` files that take their names when the block ends without an error.

    A dataset of that name is replaced, its statistics removed.
    """
    # Files are renamed in reverse order: .idx last, so a dataset with an .idx is complete.
    with atomic_file(idx_path(prefix)) as idx, atomic_file(bin_path(prefix)) as bin_:
        yield bin_, idx
        # What described an older dataset must never stand beside the new .bin, not even after a crash here.
        idx_path(prefix).unlink(missing_ok=True)
        statistics_path(prefix).unlink(missing_ok=True)


class IndexedDataset:
    """A dataset on disk, read through memory maps.

    Opening takes no longer for a large dataset than for a small one: it checks the header, both sizes and the
    ends of the index, and the rest of a small index too. What is left is checked when it is used, and by `verify`.
    A document is one sequence or several; our own writer, like Megatron's text tools, writes one.

    Raises:
        DataError: the files are missing, damaged, no pair, or of a format we do not know. Every method and
            property that reads the index raises it, too.
    """

    def __init__(self, prefix: Path) -> None:
        self.prefix = Path(prefix)
        self.reader = _C.IndexedReader(str(prefix))

    def verify(self) -> None:
        """Check every length, offset and document index.

        Raises:
            DataError: one of them is wrong.
        """
        self.reader.verify()

    @property
    def num_sequences(self) -> int:
        """Number of sequences, N."""
        return self.reader.num_sequences

    @property
    def num_documents(self) -> int:
        """Number of documents, D - 1."""
        return self.reader.num_documents

    @property
    def num_tokens(self) -> int:
        """Tokens in all sequences."""
        return self.reader.num_tokens

    @property
    def dtype(self) -> np.dtype[Any]:
        """An integer dtype: uint16 or int32 where a Megatron tool wrote the files."""
        return self.reader.dtype

    @property
    def sequence_lengths(self) -> NDArray[np.int32]:
        """Tokens in each sequence, int32 [N]; a new array at each access."""
        return self.reader.sequence_lengths()

    @property
    def document_indices(self) -> NDArray[np.int64]:
        """First sequence of each document, then N, int64 [D]; a new array at each access."""
        return self.reader.document_indices()

    def read(self, sequence: int, offset: int = 0, length: int | None = None) -> NDArray[Any]:
        """A copy of one sequence, or of ``length`` of its tokens from ``offset`` on.

        Raises:
            IndexError: the dataset has no such sequence, or the sequence no such tokens.
        """
        if length is None:
            length = self.reader.sequence_length(sequence) - offset
        return self.reader.read(sequence, offset, length)


class IndexedDatasetWriter:
    """Writes a dataset, one sequence per document; it takes its name when the ``with`` block ends well.

    Nothing is left of a block that raises. A dataset of that name is replaced: whether it may be is for the
    caller to decide.

    Args:
        prefix: path without ``.bin``/``.idx``; its folder is created.
        dtype: of a token on disk, any integer dtype of the format: see `token_dtype`.
    """

    def __init__(self, prefix: Path, dtype: DTypeLike) -> None:
        self.prefix = Path(prefix)
        self.dtype = np.dtype(dtype)
        self._files = contextlib.ExitStack()
        self._builder: _C.IndexedBuilder | None = None

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as files:
            bin_, idx = files.enter_context(atomic_dataset(self.prefix))
            self._builder = _C.IndexedBuilder(bin_.fileno(), idx.fileno(), self.dtype)
            self._files = files.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        builder, self._builder = self._open_builder(), None
        if error is not None:
            self._files.__exit__(kind, error, trace)
            return
        with self._files:
            builder.finish()

    @property
    def num_documents(self) -> int:
        """Documents added so far."""
        return self._open_builder().num_documents

    @property
    def num_tokens(self) -> int:
        """Tokens added so far."""
        return self._open_builder().num_tokens

    def add_documents(self, tokens: NDArray[Any], lengths: NDArray[Any]) -> None:
        """Append documents.

        Args:
            tokens: integers [sum of lengths], the documents one behind the other.
            lengths: integers [documents], tokens in each; 0 is allowed.

        Raises:
            DataError: an id does not fit the dataset's dtype.
            ValueError: the lengths do not add up to the tokens.
        """
        self._open_builder().add_documents(self._converted(tokens), np.asarray(lengths, dtype=np.int64))

    def _converted(self, tokens: NDArray[Any]) -> NDArray[Any]:
        if tokens.dtype != self.dtype and tokens.size > 0:
            limits = np.iinfo(self.dtype)
            lowest, highest = int(tokens.min()), int(tokens.max())
            if lowest < limits.min or highest > limits.max:
                raise DataError(
                    f"{self.prefix}: ids from {lowest} to {highest} do not fit {self.dtype}; "
                    "write the dataset with the dtype of the tokenizer's whole vocabulary"
                )
        return np.ascontiguousarray(tokens, dtype=self.dtype)

    def _open_builder(self) -> _C.IndexedBuilder:
        if self._builder is None:
            raise ValueError("IndexedDatasetWriter is used inside its with block")
        return self._builder


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TokenizerIdentity(_Strict):
    """Which tokenizer made the ids."""

    type: str
    vocab_size: int = Field(gt=0)
    sha256: str


class DatasetStatistics(_Strict):
    """What the text was before it became ids, kept beside the dataset by our preprocessing."""

    tokens: int = Field(ge=0)
    documents: int = Field(ge=0)
    bytes: int = Field(ge=0, description="UTF-8 bytes of the text: the denominator of bits per byte")
    tokenizer: TokenizerIdentity
    append_eod: bool
    prepend_bos: bool
    eod_id: int | None

    @classmethod
    def read(cls, prefix: Path) -> Self | None:
        """The statistics of a dataset, None where nobody wrote any (a dataset of another tool).

        Raises:
            DataError: the file is there but is not what it should be.
        """
        path = statistics_path(prefix)
        if not path.exists():
            return None
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, item['loc']))} {item['msg']}" for item in error.errors()
            )
            raise DataError(
                f"{path}: not the statistics of a dataset ({problems}); preprocess it again"
            ) from error

    def check_describes(self, dataset: IndexedDataset) -> None:
        """Refuse a dataset of other size: statistics that stayed behind when their dataset was replaced.

        Raises:
            DataError: the numbers of tokens or documents differ.
        """
        told, held = (self.tokens, self.documents), (dataset.num_tokens, dataset.num_documents)
        if told != held:
            raise DataError(
                f"{statistics_path(dataset.prefix)}: tells of {told[0]:,} tokens in {told[1]:,} documents, but "
                f"{bin_path(dataset.prefix)} holds {held[0]:,} in {held[1]:,}; remove it or preprocess again"
            )

    def write(self, prefix: Path) -> None:
        """Write beside the dataset, atomically."""
        write_text(statistics_path(prefix), self.model_dump_json(indent=2) + "\n")
