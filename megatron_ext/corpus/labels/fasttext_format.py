"""Checks a fastText model before the library reads it: that reader believes every size and index in the file.

The format holds numbers and words only, no code. It is what fastText 0.9.2 reads as versions 11 and 12
(``FastText::loadModel``, ``Dictionary::load``, ``DenseMatrix::load``, ``QuantMatrix::load``, ``ProductQuantizer::load``
of https://github.com/facebookresearch/fastText); numbers are little-endian.
"""

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from megatron_ext.errors import CorpusError

MAGIC, VERSIONS = 793712314, (11, 12)
SUPERVISED = 3
HIERARCHICAL_SOFTMAX, LOSSES = 1, (1, 2, 3, 4)  # and negative sampling, softmax, one against all
WORD, LABEL = 0, 1
_CENTROIDS = 256  # a code is one byte
# fastText keeps every n-gram of every word in memory. Models for language identification have up to 6 characters.
_LONGEST_NGRAM = 32
# The tree of the hierarchical softmax takes a larger leaf for an empty place, and goes as deep as there are zeros.
_LEAVES = range(1, 10**15)


def check_model(path: Path) -> None:
    """Make sure that the file is a supervised model in which every size and index fits.

    Raises:
        CorpusError: it cannot be read, or is something else.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            _check(_Cursor(content))
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, struct.error) as error:
        raise CorpusError(
            f"{path}: no fastText model that identifies languages, or damaged: {error}"
        ) from error


@dataclass
class _Cursor:
    """A place in the file that only goes forward, and never beyond the end."""

    content: mmap.mmap
    position: int = 0

    def take(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from(f"<{layout}", self.content, self.position)
        self.position += struct.calcsize(f"<{layout}")
        return values

    def flag(self) -> bool:
        (value,) = self.take("B")
        _require(value in {0, 1}, "a flag is neither 0 nor 1")
        return bool(value)

    def skip(self, size: int) -> None:
        _require(0 <= size <= len(self.content) - self.position, "it ends too early")
        self.position += size

    def word(self) -> bytes:
        end = self.content.find(b"\0", self.position)
        _require(end >= 0, "it ends within a word")
        text = self.content[self.position : end]
        self.position = end + 1
        return text


@dataclass(frozen=True)
class _Dictionary:
    words: int
    labels: int
    kept_buckets: int | None  # None: all, for nothing was pruned


def _check(cursor: _Cursor) -> None:
    magic, version = cursor.take("ii")
    _require(magic == MAGIC, "it begins with something else")
    _require(version in VERSIONS, f"it is of version {version}, not of {VERSIONS}")
    dim, _, _, _, _, word_ngrams, loss, kind, bucket, _, longest, _ = cursor.take("12i")
    cursor.take("d")
    _require(kind == SUPERVISED and loss in LOSSES, "it was not trained to tell labels")
    hashed = word_ngrams > 1 or longest > 0
    _require(dim > 0 and bucket >= int(hashed) and longest <= _LONGEST_NGRAM, "its sizes make no sense")

    dictionary = _check_dictionary(cursor, loss)
    buckets = bucket * hashed if dictionary.kept_buckets is None else dictionary.kept_buckets
    quantized = cursor.flag()
    _require(quantized or dictionary.kept_buckets is None, "it was pruned and not quantized")
    rows = _check_matrix(cursor, dim, quantized)
    _require(rows >= dictionary.words + buckets, "its matrix has too few rows for its words")
    quantized_output = cursor.flag()
    rows = _check_matrix(cursor, dim, quantized and quantized_output)
    _require(rows == dictionary.labels, "its matrix does not fit its labels")
    _require(cursor.position == len(cursor.content), "it goes on after its end")


def _check_dictionary(cursor: _Cursor, loss: int) -> _Dictionary:
    size, words, labels, _, pruned = cursor.take("iiiqq")
    _require(words >= 0 and labels > 0 and size == words + labels, "its number of words makes no sense")
    for place in range(size):
        text = cursor.word()
        count, kind = cursor.take("qb")
        _require(kind == (WORD if place < words else LABEL), "its words and labels are mixed")
        _require(
            kind == WORD or loss != HIERARCHICAL_SOFTMAX or count in _LEAVES,
            "its labels' counts make no sense",
        )
        if kind == LABEL:
            text.decode()  # UnicodeDecodeError is a ValueError
    if pruned < 0:
        return _Dictionary(words, labels, None)
    start = cursor.position
    cursor.skip(8 * pruned)
    kept = np.frombuffer(cursor.content[start : cursor.position], "<i4").reshape(-1, 2)[:, 1]
    _require(not (kept < 0).any(), "a row is negative")
    return _Dictionary(words, labels, int(kept.max()) + 1 if pruned else 0)


def _check_matrix(cursor: _Cursor, dim: int, quantized: bool) -> int:
    """Go past a matrix.

    Returns:
        its number of rows.
    """
    normed = quantized and cursor.flag()
    rows, columns = cursor.take("qq")
    _require(rows >= 0 and columns == dim, "a matrix does not fit its vectors")
    if not quantized:
        cursor.skip(4 * rows * columns)
        return int(rows)
    (size,) = cursor.take("i")
    cursor.skip(size)
    parts = _check_quantizer(cursor, dim)
    _require(size == rows * parts, "a matrix does not fit its codes")
    if normed:
        cursor.skip(rows)
        _check_quantizer(cursor, 1)
    return int(rows)


def _check_quantizer(cursor: _Cursor, dim: int) -> int:
    """Go past a product quantizer.

    Returns:
        into how many parts it cuts a vector of ``dim`` numbers.
    """
    own, parts, width, last = cursor.take("4i")
    fits = own == dim and parts > 0 and 0 < last <= width and (parts - 1) * width + last == dim
    _require(fits, "a quantizer does not fit its vectors")
    cursor.skip(4 * dim * _CENTROIDS)
    return int(parts)


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)
