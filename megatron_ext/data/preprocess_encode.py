"""Rows of text to ids: on threads where the encoder is in C++, in processes where a library encodes."""

import collections
import contextlib
import copy
import multiprocessing
import os
import queue
import signal
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from megatron_ext import _C
from megatron_ext.data.indexed import token_dtype
from megatron_ext.data.preprocess_read import Chunk
from megatron_ext.data.preprocess_rows import BadRowError, Skipped
from megatron_ext.errors import DataError, TokenizerError
from megatron_ext.tokenizer.base import Tokenizer
from megatron_ext.tokenizer.build import build_tokenizer
from megatron_ext.utils.console import get_logger

logger = get_logger(__name__)


@dataclass(frozen=True)
class EncodeSettings:
    """How text becomes ids; small, since every worker gets a copy."""

    tokenizer_type: str
    tokenizer_model: str | None
    json_keys: tuple[str, ...]
    append_eod: bool
    prepend_bos: bool
    skip_bad_rows: bool = False


@dataclass(frozen=True)
class Encoded:
    """Documents of one chunk under one JSON key."""

    tokens: npt.NDArray[Any]  # [sum of lengths], in the dtype of the dataset
    lengths: npt.NDArray[np.int64]  # [documents]
    text_bytes: int  # UTF-8, of the texts that became tokens
    empty: int  # texts that have no tokens, and so became no document


@dataclass(frozen=True)
class EncodedChunk:
    """What became of a chunk, by JSON key in the order of the settings."""

    keys: list[Encoded]
    skipped: Skipped
    file_bytes: int
    ends_dataset: bool


class Encoder:
    """Turns chunks into ids; one thread at a time uses it."""

    def __init__(self, settings: EncodeSettings) -> None:
        """Load the tokenizer.

        Raises:
            TokenizerError: it cannot be loaded, or lacks the EOS or BOS that the settings ask for.
        """
        self.settings = settings
        self.tokenizer: Tokenizer = build_tokenizer(settings.tokenizer_type, settings.tokenizer_model)
        self.dtype = token_dtype(self.tokenizer.vocab_size)
        self.native = self.tokenizer.native_encoder()
        self._before = self._control("BOS", self.tokenizer.bos_id, settings.prepend_bos)
        self._after = self._control("EOS", self.tokenizer.eos_id, settings.append_eod)

    def _control(self, name: str, token: int | None, wanted: bool) -> int | None:
        """The token to put at one end of each document, or none."""
        if wanted and token is None:
            kind, model = self.settings.tokenizer_type, self.settings.tokenizer_model
            raise TokenizerError(
                f"{model}: the {kind} has no {name} token (Hugging Face names it in tokenizer_config.json, "
                f"as {name.lower()}_token); use one that has, or do without"
            )
        return token if wanted else None

    def clone(self) -> "Encoder":
        """Another for the same ids, for another thread: what C++ remembers of texts is not shared."""
        other = copy.copy(self)
        other.native = None if self.native is None else self.native.clone()
        return other

    def encode(self, chunk: Chunk) -> EncodedChunk:
        """Ids of every document of ``chunk``.

        Raises:
            DataError: a row is bad and the settings do not say to skip it; names file and line.
        """
        skipped = Skipped()

        def on_bad(index: int, error: BadRowError) -> None:
            message = f"{chunk.where(index)}: {error}"
            if not self.settings.skip_bad_rows:
                raise DataError(message) from error
            skipped.add(error.reason, message)

        texts = chunk.settled_texts(self.settings.json_keys, on_bad)
        keys = [self._encode_texts(texts, key) for key in range(len(self.settings.json_keys))]
        return EncodedChunk(keys, skipped, chunk.file_bytes, chunk.ends_dataset)

    def _encode_texts(self, texts: _C.Texts, key: int) -> Encoded:
        if self.native is not None:
            return Encoded(*texts.encode(self.native, key, self.dtype, self._before, self._after))
        before, after = (
            np.array([] if token is None else [token], self.dtype) for token in (self._before, self._after)
        )
        pieces: list[npt.NDArray[Any]] = [np.empty(0, self.dtype)]
        lengths: list[int] = []
        text_bytes = 0
        strings = texts.strings(key)
        for text, ids in zip(strings, self.tokenizer.encode_batch(strings), strict=True):
            if ids.size:
                pieces += (before, ids.astype(self.dtype), after)
                lengths.append(before.size + ids.size + after.size)
                text_bytes += len(text.encode())
        empty = len(strings) - len(lengths)
        return Encoded(np.concatenate(pieces), np.array(lengths, np.int64), text_bytes, empty)


Submit = Callable[[Chunk], Future[EncodedChunk]]


def encode_chunks(chunks: Iterator[Chunk], encoder: Encoder, workers: int) -> Generator[EncodedChunk]:
    """Encode ``chunks`` in order, on ``workers`` threads or in as many processes; few are in memory at once.

    Raises:
        DataError: a row is bad, or a worker died.
    """
    if encoder.native is None:
        logger.info("%s", encoder.tokenizer.no_native_encoder)
    if encoder.native is None and workers == 1:
        yield from map(encoder.encode, chunks)
        return
    with _processes(encoder, workers) if encoder.native is None else _threads(encoder, workers) as submit:
        pending: collections.deque[Future[EncodedChunk]] = collections.deque()
        for chunk in chunks:
            pending.append(submit(chunk))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


@contextlib.contextmanager
def _threads(encoder: Encoder, workers: int) -> Iterator[Submit]:
    """Threads of this process: all that takes time happens in C++ and without the interpreter's lock."""
    idle: queue.SimpleQueue[Encoder] = queue.SimpleQueue()
    for _ in range(workers):
        idle.put(encoder.clone())

    def encode(chunk: Chunk) -> EncodedChunk:
        own = idle.get()
        try:
            return own.encode(chunk)
        finally:
            idle.put(own)

    pool = ThreadPoolExecutor(workers)
    try:
        yield lambda chunk: pool.submit(encode, chunk)
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _processes(encoder: Encoder, workers: int) -> Iterator[Submit]:
    """Fresh processes (spawn): forking one whose libraries have threads, as tokenizers has, can hang."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(encoder.settings,))
    try:
        yield lambda chunk: pool.submit(_encode_in_worker, chunk)
    except BrokenProcessPool as error:
        raise DataError(
            "a tokenizing process died (out of memory?); use fewer --workers, and call preprocess() "
            'under if __name__ == "__main__" in a script of your own'
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_worker_encoder: list[Encoder] = []  # one in each worker: a tokenizer cannot travel with every task


def _start_worker(settings: EncodeSettings) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _worker_encoder.append(Encoder(settings))


def _encode_in_worker(chunk: Chunk) -> EncodedChunk:
    return _worker_encoder[0].encode(chunk)
