"""Text files in, bounded chunks of their lines out."""

import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_ext.errors import DataError

SUFFIXES = (".jsonl", ".jsonl.gz")
CHUNK_BYTES = 1 << 19  # some 0.1 s of encoding: long beside the cost of a task, short beside a job


@dataclass(frozen=True)
class Chunk:
    """Some consecutive lines of one file."""

    path: Path
    first_line: int  # counted from 1
    lines: list[bytes]
    file_bytes: int  # how far the file was read for this chunk, as it lies on disk
    ends_dataset: bool = False  # a mark without lines behind the last chunk of a dataset


def check_inputs(paths: Sequence[Path]) -> None:
    """Refuse what can be refused before the first byte is read.

    Raises:
        DataError: a file is missing, empty, or of a kind that is not read.
    """
    for path in paths:
        if not path.exists():
            raise DataError(f"{path}: no such file")
        if not path.is_file():
            raise DataError(f"{path}: not a file; name the .jsonl files themselves")
        if not path.name.endswith(SUFFIXES):
            raise DataError(f"{path}: can read {' and '.join(SUFFIXES)} (one JSON object a line), not this")
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty")


def shard_name(path: Path) -> str:
    """File name without ``.jsonl`` or ``.jsonl.gz``."""
    return path.name.removesuffix(".gz").removesuffix(".jsonl")


def read_chunks(path: Path) -> Iterator[Chunk]:
    """Lines of ``path`` in chunks of about ``CHUNK_BYTES``; memory is that and the longest line.

    Raises:
        DataError: the file cannot be read or decompressed.
    """
    first_line, position = 1, 0
    try:
        with path.open("rb") as file, _decompressed(file, path) as stream:
            while lines := stream.readlines(CHUNK_BYTES):
                yield Chunk(path, first_line, lines, file.tell() - position)
                first_line, position = first_line + len(lines), file.tell()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read beyond line {first_line - 1}: {error}") from error


def _decompressed(file: io.BufferedReader, path: Path) -> io.BufferedIOBase:
    return gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
