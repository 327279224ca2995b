"""What there is to mix, from a table (CSV, or TSV) such as the token counts that corpora publish."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from megatron_ext.corpus.mixture.names import unknown
from megatron_ext.corpus.mixture.sets import CountedSets, MixtureSet
from megatron_ext.errors import CorpusError

# Columns by the names that published tables give them, in lower case.
RECOGNISED = {
    "label": ("label", "lang_code", "language_code", "lang", "language"),
    "tokens": ("tokens", "num_tokens", "token_count", "n_tokens"),
    "whitespace_tokens": ("whitespace_tokens", "num_words", "words"),
    "category": ("category",),
}
REQUIRED = ("label", "tokens")


@dataclass(frozen=True)
class Columns:
    """The columns' names where they are none of `RECOGNISED`."""

    label: str | None = None
    tokens: str | None = None
    category: str | None = None


def read_table(path: Path, columns: Columns) -> CountedSets:
    """The sets of a table with a header; without a column of categories all are ``mono``.

    Args:
        path: UTF-8, separated by commas, semicolons or tabs.
        columns: their names.

    Raises:
        CorpusError: no table, a column is missing, a count is no count, a set is there twice.
    """
    sets: dict[str, MixtureSet] = {}
    for line, row in _rows(path, columns):
        where = f"{path}:{line}"
        label, category = row["label"].strip(), row.get("category", "mono").strip()
        if not label or not category:
            raise CorpusError(f"{where}: has no {'category' if label else 'label'}")
        tokens = _count(where, "tokens", row["tokens"])
        words = row.get("whitespace_tokens")
        one = MixtureSet(
            category, label, tokens, tokens if words is None else _count(where, "whitespace_tokens", words)
        )
        if one.name in sets:
            raise CorpusError(f"{where}: {one.name} is there twice; give each set once")
        sets[one.name] = one
    if not sets:
        raise CorpusError(f"{path}: has a header and no rows")
    return CountedSets(tuple(sets.values()), "tokens of the table")


def _rows(path: Path, columns: Columns) -> Iterator[tuple[int, dict[str, str]]]:
    """Lines' numbers, and their cells by the keys of `RECOGNISED`."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            header = stream.readline()
            separator = max(",;\t", key=header.count)
            names = next(csv.reader([header], delimiter=separator), [])
            found = _find(path, names, columns)
            for number, cells in enumerate(csv.reader(stream, delimiter=separator), start=2):
                if cells and len(cells) != len(names):
                    raise CorpusError(
                        f"{path}:{number}: has {len(cells)} columns, and the header has {len(names)}"
                    )
                if cells:
                    yield number, {key: cells[index] for key, index in found.items()}
    except OSError as error:
        raise CorpusError(f"{path}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise CorpusError(f"{path}: is no table of text in UTF-8: {error}") from error


def _find(path: Path, names: Sequence[str], columns: Columns) -> Mapping[str, int]:
    found = {}
    lower = [name.strip().lower() for name in names]
    for key, candidates in RECOGNISED.items():
        asked = getattr(columns, key, None)
        if asked is not None and asked not in names:
            raise CorpusError(unknown(f"{path}: column of {key}", asked, names))
        wanted = [asked.strip().lower()] if asked is not None else candidates
        index = next((lower.index(name) for name in wanted if name in lower), None)
        if index is not None:
            found[key] = index
        elif key in REQUIRED:
            raise CorpusError(
                f"{path}: has no column of {key} (one of {', '.join(candidates)}), only {', '.join(names)}; "
                f"name it with --{key}-column"
            )
    return found


def _count(where: str, key: str, text: str) -> int:
    try:
        count = int(text.replace("_", ""))
    except ValueError:
        raise CorpusError(f"{where}: {key}: {text!r} is no whole number") from None
    if count < 0:
        raise CorpusError(f"{where}: {key}: {count} is negative")
    return count
