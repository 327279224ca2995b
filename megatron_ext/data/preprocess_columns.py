"""Parquet and Arrow files, the columns that are needed and some rows at a time (needs pyarrow)."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from megatron_ext.data import preprocess_read
from megatron_ext.data.preprocess_read import Chunk
from megatron_ext.data.preprocess_rows import KEYS_SHOWN, Columns, column_row
from megatron_ext.errors import DataError

ROWS_PER_STEP = 128  # documents that become Python objects together
ARROW_FILE_MAGIC = b"ARROW1"

Batches = Iterator[tuple[pa.RecordBatch, int]]  # with how far the file is read behind it, in bytes


def read_parquet(path: Path, keys: Sequence[str]) -> Iterator[Chunk]:
    """Rows of a Parquet file; memory is a chunk, `ROWS_PER_STEP` documents and pages of its columns.

    Raises:
        DataError: the file is broken or lacks a column.
    """
    with _reading(path), pq.ParquetFile(path, pre_buffer=False) as file:
        _check_columns(path, file.schema_arrow, keys)
        size, rows = path.stat().st_size, file.metadata.num_rows
        batches = file.iter_batches(ROWS_PER_STEP, columns=list(keys), use_threads=False)
        yield from _chunks(path, keys, ((one, size * one.num_rows // rows) for one in batches))


def read_arrow(path: Path, keys: Sequence[str]) -> Iterator[Chunk]:
    """Rows of an Arrow file: with an index (Feather), or a stream (as Hugging Face's datasets saves).

    The file is mapped; memory is a chunk, `ROWS_PER_STEP` documents and, if compressed, one of its batches.

    Raises:
        DataError: the file is broken or lacks a column.
    """
    with _reading(path), pa.memory_map(str(path)) as source:
        indexed = source.read(len(ARROW_FILE_MAGIC)) == ARROW_FILE_MAGIC
        source.seek(0)
        with pa.ipc.open_file(source) if indexed else pa.ipc.open_stream(source) as file:
            _check_columns(path, file.schema, keys)
            batches = _indexed_batches(path, file) if indexed else _streamed_batches(source, file)
            yield from _chunks(path, keys, batches)


def _indexed_batches(path: Path, file: pa.ipc.RecordBatchFileReader) -> Batches:
    for number in range(file.num_record_batches):
        yield file.get_batch(number), path.stat().st_size // file.num_record_batches


def _streamed_batches(source: pa.MemoryMappedFile, file: pa.ipc.RecordBatchStreamReader) -> Batches:
    position = source.tell()
    for batch in file:
        yield batch, source.tell() - position
        position = source.tell()


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:  # the last: a damaged schema
        raise DataError(f"{path}: cannot be read: {error}") from error


def _check_columns(path: Path, schema: pa.Schema, keys: Sequence[str]) -> None:
    for key in keys:
        if schema.names.count(key) != 1:
            there = ", ".join(schema.names[:KEYS_SHOWN]) or "none"
            raise DataError(
                f"{path}: no one column {key!r}; columns there: {there}; choose with --json-keys "
                "(in a manifest: text_key)"
            )


def _chunks(path: Path, keys: Sequence[str], batches: Batches) -> Iterator[Chunk]:
    """Chunks of about `CHUNK_BYTES`; a last one, perhaps without rows, since a file may well have none."""
    first, rows, text_bytes, file_bytes = 1, _no_rows(keys), 0, 0
    for batch, batch_bytes in batches:
        file_bytes += batch_bytes
        needed = batch.select(list(keys))
        needed.validate()  # before anything else: pyarrow itself crashes on lengths that are not true
        for start in range(0, needed.num_rows, ROWS_PER_STEP):
            part = needed.slice(start, ROWS_PER_STEP)
            for key, column in zip(keys, part.columns, strict=True):
                rows.values[key].extend(_undecoded(column).to_pylist())
            text_bytes += part.nbytes
            if text_bytes >= preprocess_read.CHUNK_BYTES:
                yield Chunk(path, first, rows, file_bytes, column_row)
                first, rows, text_bytes, file_bytes = first + len(rows), _no_rows(keys), 0, 0
    yield Chunk(path, first, rows, file_bytes, column_row)


def _no_rows(keys: Sequence[str]) -> Columns:
    return Columns({key: [] for key in keys})


def _undecoded(column: Any) -> Any:
    """A column with bytes for strings, so that one that is not UTF-8 is one bad row; offsets are checked."""
    if pa.types.is_dictionary(column.type):
        column.validate(full=True)
        column = column.dictionary_decode()
    if pa.types.is_string(column.type):
        column = column.cast(pa.binary())
    elif pa.types.is_large_string(column.type):
        column = column.cast(pa.large_binary())
    elif pa.types.is_string_view(column.type):
        column = column.cast(pa.binary_view())
    column.validate(full=True)
    return column
