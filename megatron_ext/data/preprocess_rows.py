"""One row of an input (a line of JSON, a file of text, a row of columns) to its texts."""

import functools
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from megatron_ext import _C
from megatron_ext.tokenizer.base import well_formed

KEYS_SHOWN = 10

Row = dict[str, object]


@dataclass(frozen=True)
class Lines(Sequence[bytes]):
    """Lines of JSON as they lie in a file, behind each other; C++ makes texts of them without splitting them."""

    block: bytes

    def texts(self, keys: Sequence[str]) -> _C.Texts:
        """Strings under ``keys``; odd are the lines whose meaning is for `json_row` to say."""
        return _C.json_texts(self.block, [key.encode(errors="surrogatepass") for key in keys])

    def __len__(self) -> int:
        """Number of lines, blank ones included."""
        return self.block.count(b"\n") + (not self.block.endswith(b"\n"))

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        """A line with its end."""
        return self._split[index]

    @functools.cached_property
    def _split(self) -> list[bytes]:
        return io.BytesIO(self.block).readlines()


@dataclass(frozen=True)
class Columns(Sequence[Row]):
    """Rows of a Parquet or Arrow file, by column; strings are bytes."""

    values: dict[str, list[Any]]

    def texts(self, keys: Sequence[str]) -> _C.Texts:
        """Strings of the columns ``keys``; odd are the rows that do not have UTF-8 in each."""
        return _C.column_texts(tuple(tuple(self.values[key]) for key in keys))

    def __len__(self) -> int:
        """Number of rows."""
        return len(next(iter(self.values.values())))

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        """A row, as `column_row` takes it."""
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        return {key: values[index] for key, values in self.values.items()}


class BadRowError(Exception):
    """A row that cannot be used: ``reason`` groups rows alike, the text says what is wrong with this one."""

    def __init__(self, reason: str, problem: str) -> None:
        super().__init__(problem)
        self.reason = reason

    def __reduce__(self) -> tuple[type["BadRowError"], tuple[str, str]]:
        """Travel between processes: an exception is rebuilt from its arguments, which here are two."""
        return BadRowError, (self.reason, str(self))


@dataclass
class Skipped:
    """Rows that were left out, by reason."""

    counts: dict[str, int] = field(default_factory=dict)
    firsts: dict[str, str] = field(default_factory=dict)  # message of the first, with file and line

    def add(self, reason: str, first: str, rows: int = 1) -> None:
        """Count rows; the message is kept if none of this reason came before."""
        self.counts[reason] = self.counts.get(reason, 0) + rows
        self.firsts.setdefault(reason, first)

    def merge(self, later: "Skipped") -> None:
        """Count what was skipped behind everything counted here."""
        for reason, rows in later.counts.items():
            self.add(reason, later.firsts[reason], rows)

    @property
    def total(self) -> int:
        """Rows of all reasons."""
        return sum(self.counts.values())


def json_row(line: bytes) -> Row | None:
    """The object in one line of JSON, or None for a blank line.

    Raises:
        BadRowError: it is not UTF-8, not JSON, or no object.
    """
    if not line.strip():
        return None
    try:
        row = json.loads(_decoded(line, "the line"))
    except (ValueError, RecursionError) as error:
        raise BadRowError("invalid JSON", f"not valid JSON: {error}") from error
    if not isinstance(row, dict):
        problem = f"expected a JSON object with a key for the text, found {_kind(row)}"
        raise BadRowError("no JSON object", problem)
    return row


def text_row(content: bytes) -> Row:
    """A whole file of text, under the key ``text``; a byte order mark is no part of it.

    Raises:
        BadRowError: it is not UTF-8.
    """
    return {"text": _decoded(content, "the file").removeprefix("\ufeff")}


def column_row(values: Row) -> Row:
    """A row of a Parquet or Arrow file, whose strings are still bytes.

    Raises:
        BadRowError: one of them is not UTF-8.
    """
    return {
        key: _decoded(value, f"{key!r}") if isinstance(value, bytes) else value
        for key, value in values.items()
    }


def texts_of(row: Row, keys: Iterable[str]) -> list[str]:
    """Texts under ``keys``, with U+FFFD for lone surrogates.

    Raises:
        BadRowError: a key is missing or holds something else.
    """
    return [_text_under(key, row) for key in keys]


def _text_under(key: str, row: Row) -> str:
    if key not in row:
        there = ", ".join(list(row)[:KEYS_SHOWN]) or "none"
        problem = f"no key {key!r}; keys there: {there}; choose with --json-keys (in a manifest: text_key)"
        raise BadRowError("missing key", problem)
    text = row[key]
    if not isinstance(text, str):
        raise BadRowError("not a string", f"{key!r} holds {_kind(text)}, expected a string")
    return well_formed(text)


def _decoded(content: bytes, whole: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        problem = f"not UTF-8 at byte {error.start + 1} of {whole}; convert the file"
        raise BadRowError("invalid UTF-8", problem) from error


def _kind(value: object) -> str:
    """JSON's name for a value's type, or Python's for what only columns can hold."""
    names = {
        dict: "an object",
        list: "an array",
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        type(None): "null",
    }
    return names.get(type(value), type(value).__name__)
