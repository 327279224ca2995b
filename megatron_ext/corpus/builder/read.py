"""Pieces of the input as chunks of rows, with a bound on what a single row may take."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from megatron_ext.corpus.builder.parts import Piece
from megatron_ext.data.preprocess_open import READ_ERRORS, opened
from megatron_ext.data.preprocess_read import CHUNK_BYTES, Chunk, read_chunks
from megatron_ext.data.preprocess_rows import BadRowError, Lines, Row, json_row, text_row
from megatron_ext.errors import DataError

HEAD_BYTES = 4096  # looked at for what no text has


def read_piece(piece: Piece, keys: Sequence[str], max_row_bytes: int) -> Iterator[Chunk]:
    """Rows of a piece in order; memory is a chunk and one row of at most ``max_row_bytes``.

    Rows are counted from 1 at the beginning of the piece; `row_number` counts from the beginning of its file. A
    longer row comes as one that its chunk's ``parse`` refuses.

    Raises:
        DataError: the file is no text or cannot be read to its end.
    """
    try:
        if piece.kind == ".jsonl":
            yield from _lines(piece, max_row_bytes)
        elif piece.kind == ".txt":
            yield _text(piece, max_row_bytes)
        else:
            yield from read_chunks(piece.path, keys, piece.kind)
    except READ_ERRORS as error:
        raise DataError(f"{piece.path}: cannot be read to its end: {error}") from error


def row_number(piece: Piece, row: int) -> int:
    """Number in the file of a row of the piece, both counted from 1."""
    if piece.start == 0:
        return row
    with piece.path.open("rb") as stream:
        stream.seek(piece.start - 1)
        first = piece.start - 1 + sum(len(block) for block in _rest_of_line(stream))
        stream.seek(0)
        lines = 0
        for position in range(0, first, CHUNK_BYTES):
            lines += stream.read(min(CHUNK_BYTES, first - position)).count(b"\n")
    return lines + row


def _lines(piece: Piece, max_row_bytes: int) -> Iterator[Chunk]:
    """Lines of JSON that begin in the piece."""
    with opened(piece.path) as (stream, tell):
        position = read = 0  # of the text, and of the file
        if piece.start:
            stream.seek(piece.start - 1)  # a line begins here if the byte before ends one
            position = piece.start - 1 + sum(len(block) for block in _rest_of_line(stream))
            read = piece.start
        end = None if piece.end == piece.identity.size else piece.end  # None too where it is compressed
        row = 1
        while end is None or position < end:
            block = stream.read(CHUNK_BYTES if end is None else min(CHUNK_BYTES, end - position))
            if not block:
                break
            if position == 0:
                _refuse_binary(piece.path, block[:HEAD_BYTES])
            rest = b"" if block.endswith(b"\n") else stream.readline(max_row_bytes)
            position += len(block) + len(rest)
            whole = len(rest) < max_row_bytes or rest.endswith(b"\n")
            lines = Lines(block + rest if whole else block[: block.rfind(b"\n") + 1])
            reached = tell() if tell else position
            if lines.block:
                yield Chunk(piece.path, row, lines, reached - read, json_row)
                row, read = row + len(lines), reached
            if not whole:
                position += sum(len(block) for block in _rest_of_line(stream))
                yield Chunk(piece.path, row, [max_row_bytes], 0, _too_long)
                row += 1


def _rest_of_line(stream: IO[bytes]) -> Iterator[bytes]:
    """What is left of the line, in bounded blocks."""
    while block := stream.readline(CHUNK_BYTES):
        yield block
        if block.endswith(b"\n"):
            break


def _text(piece: Piece, max_row_bytes: int) -> Chunk:
    with opened(piece.path) as (stream, _):
        content = stream.read(max_row_bytes + 1)
    if len(content) > max_row_bytes:
        return Chunk(piece.path, 1, [max_row_bytes], piece.end, _too_long)
    return Chunk(piece.path, 1, [content], piece.end, _plain_text)


def _plain_text(content: bytes) -> Row:
    if (nul := content.find(b"\0", 0, HEAD_BYTES)) >= 0:
        raise BadRowError("binary file", _binary(nul))
    return text_row(content)


def _refuse_binary(path: Path, head: bytes) -> None:
    if (nul := head.find(b"\0")) >= 0:
        raise DataError(f"{path}: {_binary(nul)}")


def _binary(nul: int) -> str:
    return f"not text: byte {nul + 1} is zero; a binary file, or UTF-16 (convert it with iconv -t UTF-8)"


def _too_long(max_row_bytes: int) -> Row:
    problem = f"longer than {max_row_bytes:,} bytes; cut it into documents, or raise max_document_bytes"
    raise BadRowError("too long", problem)
