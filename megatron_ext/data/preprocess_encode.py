"""Rows of text to ids, in this process or in several."""

import collections
import contextlib
import multiprocessing
import os
import signal
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from megatron_ext.data.indexed import token_dtype
from megatron_ext.data.preprocess_read import Chunk
from megatron_ext.data.preprocess_rows import BadRowError, Skipped, texts_of
from megatron_ext.errors import DataError, TokenizerError
from megatron_ext.tokenizer.base import Tokenizer
from megatron_ext.tokenizer.build import build_tokenizer


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
    """Turns chunks into ids."""

    def __init__(self, settings: EncodeSettings) -> None:
        """Load the tokenizer.

        Raises:
            TokenizerError: it cannot be loaded, or lacks the EOS or BOS that the settings ask for.
        """
        self.settings = settings
        self.tokenizer: Tokenizer = build_tokenizer(settings.tokenizer_type, settings.tokenizer_model)
        self.dtype = token_dtype(self.tokenizer.vocab_size)
        self._before = self._control("BOS", self.tokenizer.bos_id, settings.prepend_bos)
        self._after = self._control("EOS", self.tokenizer.eos_id, settings.append_eod)

    def _control(self, name: str, token: int | None, wanted: bool) -> npt.NDArray[Any]:
        """The token to put at one end of each document, as an array of one id or none."""
        if wanted and token is None:
            kind, model = self.settings.tokenizer_type, self.settings.tokenizer_model
            raise TokenizerError(
                f"{model}: the {kind} has no {name} token (Hugging Face names it in tokenizer_config.json, "
                f"as {name.lower()}_token); use one that has, or do without"
            )
        return np.array([token] if wanted else [], self.dtype)

    def encode(self, chunk: Chunk) -> EncodedChunk:
        """Ids of every document of ``chunk``.

        Raises:
            DataError: a row is bad and the settings do not say to skip it; names file and line.
        """
        texts: list[list[str]] = [[] for _ in self.settings.json_keys]
        skipped = Skipped()
        for index, raw in enumerate(chunk.rows):
            try:
                row = chunk.parse(raw)
                found = texts_of(row, self.settings.json_keys) if row is not None else []
            except BadRowError as error:
                message = f"{chunk.where(index)}: {error}"
                if not self.settings.skip_bad_rows:
                    raise DataError(message) from error
                skipped.add(error.reason, message)
                continue
            for collected, text in zip(texts, found, strict=False):  # nothing was found in a blank line
                collected.append(text)
        keys = [self._encode_texts(part) for part in texts]
        return EncodedChunk(keys, skipped, chunk.file_bytes, chunk.ends_dataset)

    def _encode_texts(self, texts: list[str]) -> Encoded:
        pieces: list[npt.NDArray[Any]] = [np.empty(0, self.dtype)]
        lengths: list[int] = []
        text_bytes = 0
        for text, ids in zip(texts, self.tokenizer.encode_batch(texts), strict=True):
            if ids.size:
                pieces += (self._before, ids.astype(self.dtype), self._after)
                lengths.append(self._before.size + ids.size + self._after.size)
                text_bytes += len(text.encode())
        empty = len(texts) - len(lengths)
        return Encoded(np.concatenate(pieces), np.array(lengths, np.int64), text_bytes, empty)


def encode_chunks(chunks: Iterator[Chunk], encoder: Encoder, workers: int) -> Generator[EncodedChunk]:
    """Encode ``chunks`` in order, in this process or in ``workers`` others; few are in memory at once.

    Raises:
        DataError: a row is bad, or a worker died.
    """
    if workers == 1:
        yield from map(encoder.encode, chunks)
        return
    with _pool(encoder.settings, workers) as pool:
        pending: collections.deque[Future[EncodedChunk]] = collections.deque()
        try:
            for chunk in chunks:
                pending.append(pool.submit(_encode_in_worker, chunk))
                if len(pending) > 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool as error:
            raise DataError(
                "a tokenizing process died (out of memory?); use fewer --workers, and call preprocess() "
                'under if __name__ == "__main__" in a script of your own'
            ) from error


@contextlib.contextmanager
def _pool(settings: EncodeSettings, workers: int) -> Iterator[ProcessPoolExecutor]:
    """Fresh processes (spawn): forking one whose libraries have threads, as tokenizers has, can hang."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker, initargs=(settings,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


_worker_encoder: list[Encoder] = []  # one in each worker: a tokenizer cannot travel with every task


def _start_worker(settings: EncodeSettings) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the processes are the parallelism
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _worker_encoder.append(Encoder(settings))


def _encode_in_worker(chunk: Chunk) -> EncodedChunk:
    return _worker_encoder[0].encode(chunk)
