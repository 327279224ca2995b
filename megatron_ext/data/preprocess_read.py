"""Files of text in, bounded chunks of their rows out: one reader for each kind of file."""

import glob
import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from megatron_ext import _C
from megatron_ext.data.preprocess_open import COMPRESSIONS, READ_ERRORS, STDIN, opened
from megatron_ext.data.preprocess_rows import BadRowError, Columns, Lines, Row, json_row, text_row, texts_of
from megatron_ext.errors import DataError, MissingDependencyError

CHUNK_BYTES = 1 << 19  # some 10 ms of encoding: long beside the cost of a task, short beside a job


@dataclass(frozen=True)
class Chunk:
    """Some consecutive rows of one file, as raw as they come: parsing them is the workers' part."""

    path: Path
    first_row: int  # counted from 1
    rows: Sequence[Any]  # what `parse` takes
    file_bytes: int  # how far the file was read for this chunk, as it lies on disk
    parse: Callable[[Any], Row | None]  # None for a row that is no document; of a module, so it travels
    ends_dataset: bool = False  # a mark without rows behind the last chunk of a dataset

    def where(self, index: int) -> str:
        """File and line (or row) of ``rows[index]``."""
        return f"{label(self.path)}:{self.first_row + index}"

    def texts(self, keys: Sequence[str]) -> _C.Texts:
        """Strings under ``keys`` of the rows that are plain; the other rows, here called odd, are for `parse`."""
        if isinstance(self.rows, Lines | Columns):
            return self.rows.texts(keys)
        return _C.odd_texts(len(self.rows), len(keys))

    def settled_texts(self, keys: Sequence[str], on_bad: Callable[[int, BadRowError], None]) -> _C.Texts:
        """Strings under ``keys`` of all rows that are documents.

        Args:
            keys: of the texts.
            on_bad: called with the index of each bad row, which is left out if this returns.
        """
        texts = self.texts(keys)
        for index in texts.odd_rows():
            found = None
            try:
                row = self.parse(self.rows[index])
                found = None if row is None else texts_of(row, keys)
            except BadRowError as error:
                on_bad(index, error)
            if found is None:
                texts.drop(index)
            else:
                texts.replace(index, [text.encode() for text in found])
        return texts


class Reader(Protocol):
    """Reads one kind of file."""

    def __call__(self, path: Path, keys: Sequence[str]) -> Iterator[Chunk]:
        """Rows of ``path`` in chunks of about ``CHUNK_BYTES``; no chunk if there are no rows at all.

        Raises:
            DataError: the file cannot be read.
        """


def _read_lines(path: Path, keys: Sequence[str]) -> Iterator[Chunk]:  # noqa: ARG001
    """Lines of JSON; memory is a chunk and the longest line."""
    first_line, position = 1, 0
    try:
        with opened(path) as (stream, tell):
            while block := stream.read(CHUNK_BYTES):
                lines = Lines(block + stream.readline())  # to the end of the last line
                reached = tell() if tell else position + len(lines.block)
                yield Chunk(path, first_line, lines, reached - position, json_row)
                first_line, position = first_line + len(lines), reached
    except READ_ERRORS as error:
        raise DataError(f"{label(path)}: cannot be read beyond line {first_line - 1}: {error}") from error


def _read_text(path: Path, keys: Sequence[str]) -> Iterator[Chunk]:  # noqa: ARG001
    """A whole file as one document; memory is that file."""
    try:
        with opened(path) as (stream, _):
            content = stream.read()
    except READ_ERRORS as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    yield Chunk(path, 1, [content], path.stat().st_size, text_row)


def _read_parquet(path: Path, keys: Sequence[str]) -> Iterator[Chunk]:
    """Imported here because pyarrow is optional."""
    from megatron_ext.data.preprocess_columns import read_parquet  # noqa: PLC0415

    return read_parquet(path, keys)


def _read_arrow(path: Path, keys: Sequence[str]) -> Iterator[Chunk]:
    """Imported here because pyarrow is optional."""
    from megatron_ext.data.preprocess_columns import read_arrow  # noqa: PLC0415

    return read_arrow(path, keys)


STREAMED: dict[str, Reader] = {".jsonl": _read_lines, ".json": _read_lines, ".txt": _read_text}
COLUMNAR: dict[str, Reader] = {".parquet": _read_parquet, ".arrow": _read_arrow, ".feather": _read_arrow}
KINDS = (
    f"{', '.join(STREAMED)}, each also with {', '.join(COMPRESSIONS)}; {', '.join(COLUMNAR)}; "
    "- for JSON Lines from standard input"
)


def read_chunks(path: Path, keys: Sequence[str], kind: str | None = None) -> Iterator[Chunk]:
    """Rows of ``path`` in order, by the reader of its kind; ``keys`` are the columns that are needed.

    Args:
        path: the file, or ``-``.
        keys: columns that are needed.
        kind: ending of the kind of file that it is, whatever its own name says.

    Raises:
        DataError: the file cannot be read or decompressed, or lacks a column.
    """
    reader = _reader(path, kind)
    if reader is None:
        raise DataError(f"{path}: not a kind of file that is read; those are {KINDS}")
    return reader(path, keys)


def _reader(path: Path, kind: str | None) -> Reader | None:
    if path == STDIN:
        return _read_lines
    if path.suffix in COMPRESSIONS:
        return STREAMED.get(kind or Path(path.stem).suffix)
    return STREAMED.get(kind or path.suffix) or COLUMNAR.get(kind or path.suffix)


def kind_of(path: Path, kind: str | None = None) -> str:
    """``.jsonl``, ``.txt``, ``.parquet`` or ``.arrow``: the kind of a file that `find_inputs` found."""
    reader = _reader(path, kind)
    return next(ending for ending, one in {**STREAMED, **COLUMNAR}.items() if one is reader)


def label(path: Path) -> str:
    """How messages call an input."""
    return "stdin" if path == STDIN else str(path)


def shard_name(path: Path) -> str:
    """File name without the endings that say its kind and compression."""
    if path == STDIN:
        return "stdin"
    return Path(path.stem).stem if path.suffix in COMPRESSIONS else path.stem


def find_inputs(inputs: Sequence[Path], kind: str | None = None) -> list[Path]:
    """Files that ``inputs`` name: files, globs, folders, ``-``; refused here is what can be before reading.

    Args:
        inputs: what names them.
        kind: ending of the kind of file that all are, whatever their names say.

    Raises:
        DataError: a file is missing, empty, or of a kind that is not read; a glob or folder has none.
        MissingDependencyError: a file needs pyarrow, which is not installed.
    """
    files = [file for path in inputs for file in _files_of(path, kind)]
    if files.count(STDIN) > 1:
        raise DataError("- (standard input) is named twice, and can be read once")
    for path in files:
        if path != STDIN:
            _check_file(path, kind)
    return files


def _files_of(path: Path, kind: str | None) -> list[Path]:
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if file.is_file() and _belongs(file, kind)]
        if not files:
            raise DataError(f"{path}: nothing to read in this folder; kinds that are read: {KINDS}")
        return files
    if glob.has_magic(str(path)) and not path.exists():
        matches = map(Path, glob.glob(str(path), recursive=True))  # noqa: PTH207 (a Path globs no absolute)
        files = sorted(file for file in matches if file.is_file())
        if not files:
            raise DataError(f"{path}: no such file, and none that matches")
        return files
    return [path]


def _belongs(file: Path, kind: str | None) -> bool:
    """Whether a file of a folder is text: of a kind that is read, not hidden, not a dataset's statistics."""
    sidecar = file.suffix == ".json" and file.with_suffix(".idx").exists()
    return _reader(file, kind) is not None and not file.name.startswith(".") and not sidecar


def _check_file(path: Path, kind: str | None) -> None:
    if not path.exists():
        raise DataError(f"{path}: no such file")
    if not path.is_file():
        raise DataError(f"{path}: not a file")
    reader = _reader(path, kind)
    if reader is None:
        raise DataError(f"{path}: not a kind of file that is read; those are {KINDS}")
    if reader in COLUMNAR.values() and importlib.util.find_spec("pyarrow") is None:
        raise MissingDependencyError("pyarrow", f"read {path}", "pip install 'megatron-ext[parquet]'")
    if path.stat().st_size == 0 and reader is not _read_text:  # a text may be empty, as any document
        raise DataError(f"{path}: the file is empty")
