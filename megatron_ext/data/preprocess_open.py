"""Compressed files as streams of bytes: the one place that knows how files are compressed."""

import bz2
import contextlib
import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Protocol, cast

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["BLOCK_BYTES", "COMPRESSIONS", "READ_ERRORS", "STDIN", "opened", "zstd"]

STDIN = Path("-")
BLOCK_BYTES = 1 << 17

READ_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError, zstd.ZstdError)


class _Decoder(Protocol):
    """What the decompressors of bz2, lzma and zstd have in common: each reads one stream."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Streams(io.RawIOBase):
    """What compressed streams, one behind the other, hold.

    BZ2File, LZMAFile and ZstdFile take a damaged stream behind the first for the end of the file, and
    parallel compressors write many streams: text would go missing unseen. Here it is an error.
    """

    def __init__(self, file: IO[bytes], new_decoder: Callable[[], _Decoder]) -> None:
        self._file, self._new_decoder = file, new_decoder
        self._decoder: _Decoder | None = None

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill ``buffer`` as far as one step goes; 0 at the end.

        Raises:
            EOFError: the file ends inside a stream.
        """
        data = b""
        while not data:
            if self._decoder is None or self._decoder.eof:
                block = self._start_of_stream(b"" if self._decoder is None else self._decoder.unused_data)
                if not block:
                    return 0
                self._decoder = self._new_decoder()
            else:
                block = self._file.read(BLOCK_BYTES) if self._decoder.needs_input else b""
                if self._decoder.needs_input and not block:
                    raise EOFError("the compressed data ends too early; is the file complete?")
            data = self._decoder.decompress(block, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _start_of_stream(self, block: bytes) -> bytes:
        """Bytes from the next stream on, none at the end of the file; zeros between streams are padding."""
        while not (block := block.lstrip(b"\0")):
            block = self._file.read(BLOCK_BYTES)
            if not block:
                return b""
        return block


def _zstd_decoder() -> _Decoder:
    """Windows of ``zstd --long=31`` included, which need as much memory."""
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: 31})


def _streams(new_decoder: Callable[[], _Decoder]) -> Callable[[IO[bytes]], IO[bytes]]:
    return lambda file: io.BufferedReader(_Streams(file, new_decoder), BLOCK_BYTES)


COMPRESSIONS: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {
    ".gz": lambda file: cast(IO[bytes], gzip.GzipFile(fileobj=file)),
    ".bz2": _streams(bz2.BZ2Decompressor),
    ".xz": _streams(lzma.LZMADecompressor),
    ".zst": _streams(_zstd_decoder),
}


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[IO[bytes], Callable[[], int] | None]]:
    """Open a file, or standard input for ``-``, and undo its compression.

    Yields:
        The stream, and what says how far the file was read, as it lies on disk; None for standard input.
    """
    if path == STDIN:
        yield sys.stdin.buffer, None
        return
    with path.open("rb") as file:
        decompress = COMPRESSIONS.get(path.suffix)
        if decompress is None:
            yield file, file.tell
        else:
            with decompress(file) as stream:
                yield stream, file.tell
