"""Scripts and languages of the sample corpus: how fast they are told, and how often rightly.

    python benchmarks/labels.py [--model lid.176.ftz ...] [--output benchmarks/results/labels.json]

Text is that of `examples/udhr`: 532 translations in 448 languages, in articles, whole, and in articles cut to a number
of bytes. A share of right answers is the mean over the languages that an identifier names rightly at least once, so
that one with few languages does not lose by it; "unknown" is the share of documents in all other languages that are
given one with a confidence of at least 0.9. Time is the process's own, on one core, the best of three.
"""

import argparse
import gzip
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from megatron_ext.corpus.labels.detect import scripts_of
from megatron_ext.corpus.labels.identifiers import DEFAULT_IDENTIFIER, build_identifier
from megatron_ext.corpus.labels.identify import Identification, LanguageIdentifier
from megatron_ext.corpus.labels.rules import LabelRules
from megatron_ext.utils.atomic import write_text

CORPUS = Path(__file__).parents[1] / "examples/udhr/udhr.jsonl.gz"
BATCH = 400
SURE = 0.9
CUTS = (20, 32, 64)


@dataclass(frozen=True)
class Documents:
    """Texts of one size with their languages in ISO 639-3."""

    name: str
    texts: list[str]
    languages: list[str]

    @property
    def megabytes(self) -> float:
        """Of UTF-8."""
        return sum(len(text.encode()) for text in self.texts) / 1e6


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    documents: str
    documents_per_second: float
    megabytes_per_second: float
    languages: int | None = None
    right: float | None = None
    unknown: float | None = None


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", nargs="*", default=[], help="fastText models beside the default")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/labels.json"))
    arguments = parser.parse_args()
    sizes = documents(CORPUS)
    rows = [rate("script", one, scripts_of) for one in sizes[-2:]]
    for name in (DEFAULT_IDENTIFIER, *arguments.model):
        rows += identification(Path(name).name, build_identifier(name), sizes)
    Console(width=120).print(table(rows))
    write_text(arguments.output, json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    print(f"wrote {arguments.output}")


def documents(corpus: Path) -> list[Documents]:
    """The translations whose language has a code: cut, in articles, and whole."""
    rules = LabelRules()
    articles: list[tuple[str, str]] = []
    whole: dict[tuple[str, str], list[str]] = defaultdict(list)
    with gzip.open(corpus, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if row["iso639_3"]:
                language = rules.language(row["iso639_3"])
                articles.append((row["text"], language))
                whole[row["code"], language].append(row["text"])
    texts, languages = map(list, zip(*articles, strict=True))
    cuts = [Documents(f"{size} bytes", [cut(text, size) for text in texts], languages) for size in CUTS]
    translations = ["\n".join(parts) for parts in whole.values()]
    return [
        *cuts,
        Documents("articles", texts, languages),
        Documents("translations", translations, [language for _, language in whole]),
    ]


def cut(text: str, size: int) -> str:
    """At most ``size`` bytes from the middle of a text."""
    return text[len(text) // 2 :].encode()[:size].decode(errors="ignore")


def rate(what: str, given: Documents, work: Callable[[Sequence[str]], object]) -> Row:
    """How many of the documents a second ``work`` does, in batches."""
    times = []
    for _ in range(3):
        start = time.process_time()
        for first in range(0, len(given.texts), BATCH):
            work(given.texts[first : first + BATCH])
        times.append(time.process_time() - start)
    return Row(what, given.name, len(given.texts) / min(times), given.megabytes / min(times))


def identification(name: str, identifier: LanguageIdentifier, sizes: list[Documents]) -> list[Row]:
    """A line for each size."""
    answers = [identifier.identify(one.texts) for one in sizes]
    known = {
        language
        for one, found in zip(sizes, answers, strict=True)
        for language, answer in zip(one.languages, found, strict=True)
        if answer.language == language
    }
    rows = []
    for one, found in zip(sizes, answers, strict=True):
        speed = rate(name, one, identifier.identify)
        right, unknown = scores(one.languages, found, known)
        rows.append(
            Row(
                name,
                one.name,
                speed.documents_per_second,
                speed.megabytes_per_second,
                len(known),
                right,
                unknown,
            )
        )
    return rows


def scores(languages: list[str], found: list[Identification], known: set[str]) -> tuple[float, float]:
    """Mean share of right answers over known languages, and the share of others that are surely something."""
    right: dict[str, list[bool]] = defaultdict(list)
    sure: list[bool] = []
    for language, answer in zip(languages, found, strict=True):
        if language in known:
            right[language].append(answer.language == language)
        else:
            sure.append(answer.confidence >= SURE)
    return sum(sum(one) / len(one) for one in right.values()) / len(right), sum(sure) / len(sure)


def table(rows: list[Row]) -> Table:
    """A line a row."""
    lines = Table("", "documents", "documents/s", "MB/s", "languages", "right", "unknown")
    for row in rows:
        shares = ["" if share is None else f"{share:.3f}" for share in (row.right, row.unknown)]
        speeds = [f"{row.documents_per_second:,.0f}", f"{row.megabytes_per_second:,.1f}"]
        lines.add_row(row.what, row.documents, *speeds, str(row.languages or ""), *shares)
    return lines


if __name__ == "__main__":
    main()
