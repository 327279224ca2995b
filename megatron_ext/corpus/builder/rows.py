"""Rows of a source's files as documents with what the source declares of them, and what is wrong with a row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from megatron_ext.corpus.builder.labelling import Declared, Labeller
from megatron_ext.corpus.builder.part_file import Tally
from megatron_ext.corpus.builder.parts import Piece
from megatron_ext.corpus.builder.read import row_number
from megatron_ext.corpus.counts import CATEGORIES
from megatron_ext.corpus.manifest import SourceConfig
from megatron_ext.data.preprocess_read import Chunk
from megatron_ext.data.preprocess_rows import BadRowError
from megatron_ext.errors import CorpusError

Value = TypeVar("Value")


@dataclass
class Rows:
    """Documents of a chunk, column by column, each of the same length."""

    texts: list[str]
    categories: list[str]
    declared: list[Declared | None]  # None: the language is to be identified

    def keep(self, wanted: Sequence[bool]) -> "Rows":
        """Those that are wanted."""
        if all(wanted):
            return self
        rows = [index for index, one in enumerate(wanted) if one]
        columns = (self.texts, self.categories, self.declared)
        return Rows(*([column[row] for row in rows] for column in columns))  # type: ignore[arg-type]


class SourceRows:
    """Takes rows of one source out of chunks."""

    def __init__(self, source: SourceConfig, labeller: Labeller, tally: Tally, max_bytes: int) -> None:
        self._source, self._labeller, self._tally, self._max_bytes = source, labeller, tally, max_bytes

    def take(self, chunk: Chunk, piece: Piece) -> Rows:
        """Documents of a chunk that are as the source's keys say; the others are counted.

        Raises:
            CorpusError: a row is not, and the source does not say to skip it; names source, file and row.
        """
        source, bad = self._source, _Bad(self._source, self._tally, chunk, piece)
        texts = chunk.settled_texts(source.keys, bad.row)
        columns = {key: texts.strings(number) for number, key in enumerate(source.keys)}
        parts = [columns[key] for key in source.text_key]
        joined = parts[0] if len(parts) == 1 else ["\n".join(some) for some in zip(*parts, strict=True)]
        categories: list[str | None] = [source.category] * len(joined)
        if source.category_field is not None:
            categories = bad.converted(source.category_field, columns[source.category_field], _category)
        declared, known = self._declared(columns, len(joined), piece, bad)
        fits = [len(text) <= self._max_bytes for text in joined]
        if not all(fits):
            bad.too_long(fits.count(False), self._max_bytes)
        rows = Rows(joined, [one or "" for one in categories], declared)
        return rows.keep([all(one) for one in zip(categories, known, fits, strict=True)])

    def _declared(
        self, columns: dict[str, list[str]], count: int, piece: Piece, bad: "_Bad"
    ) -> tuple[list[Declared | None], list[bool]]:
        """What the source says of each row's language and script, and whether that is known."""
        language, labeller = self._source.language, self._labeller
        if language.detect:
            return [None] * count, [True] * count
        if language.field is not None:
            found = bad.converted(language.field, columns[language.field], labeller.declared)
        else:
            found = [labeller.of_file(self._source, piece.path)] * count
        if language.script_field is not None:
            scripts = bad.converted(language.script_field, columns[language.script_field], labeller.script)
            found = [
                None if one is None or script is None else one.with_script(script)
                for one, script in zip(found, scripts, strict=True)
            ]
        elif language.script is not None:
            found = [one and one.with_script(labeller.script(language.script)) for one in found]
        return found, [one is not None for one in found]


class _Bad:
    """Rows of a chunk that cannot be used: the first ends the work, or all are counted."""

    def __init__(self, source: SourceConfig, tally: Tally, chunk: Chunk, piece: Piece) -> None:
        self._source, self._skipped, self._chunk, self._piece = source, tally.skipped, chunk, piece

    def row(self, index: int, error: BadRowError, rows: int = 1) -> None:
        """Count a row, or raise what is wrong with it; its number is looked up where somebody reads it."""
        seen = error.reason in self._skipped.firsts
        where = (
            "" if seen else f"{self._chunk.path}:{row_number(self._piece, self._chunk.first_row + index)}: "
        )
        message = f"{where}{error}"
        if self._source.on_error == "fail":
            raise CorpusError(message) from error
        self._skipped.add(error.reason, message, rows)

    def too_long(self, rows: int, limit: int) -> None:
        """Texts of a chunk are longer than the limit: values of columns, since lines are read with it."""
        problem = (
            f"from this row on: a text of more than {limit:,} characters; cut it, or raise max_document_bytes"
        )
        self.row(0, BadRowError("too long", problem), rows)

    def converted(
        self, key: str, values: Sequence[str], convert: Callable[[str], Value]
    ) -> list[Value | None]:
        """What ``convert`` makes of the strings under ``key``; None for those that it does not know."""
        table: dict[str, Value | None] = {}
        for value in dict.fromkeys(values):
            try:
                table[value] = convert(value)
            except CorpusError as error:
                table[value] = None
                problem = BadRowError(f"unknown value of {key}", f"{key}: {error}")
                self.row(self._index_of(key, value), problem, values.count(value))
        return [table[value] for value in values]

    def _index_of(self, key: str, value: str) -> int:
        """The first row with a value; looked for only where it is wrong."""
        for index, raw in enumerate(self._chunk.rows):
            try:
                row = self._chunk.parse(raw)
            except BadRowError:
                continue
            if row is not None and row.get(key) == value:
                return index
        return 0


def _category(value: str) -> str:
    if value not in CATEGORIES:
        raise CorpusError(f"{value!r} is no category; those are {', '.join(CATEGORIES)}")
    return value
