"""Split the sample corpus into one training and one held-out file per language and script.

    python examples/udhr/prepare.py --output runs/quickstart/data/text

writes OUTPUT/train/eng_Latn.jsonl, OUTPUT/valid/eng_Latn.jsonl and so on, one JSON object a line with keys
id, article and text. README.md beside this file states the rules and their reasons.
"""

import argparse
import gzip
import json
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from megatron_ext.corpus.labels.detect import scripts_of
from megatron_ext.corpus.labels.rules import UNDETERMINED
from megatron_ext.utils.atomic import atomic_directory

CORPUS = Path(__file__).with_name("udhr.jsonl.gz")

# Held out in every language: the text is parallel, so an article seen in one would be no test in another.
HELD_OUT_ARTICLES = frozenset({16, 19})
LAST_ARTICLE = 30

# Sections before Article 1, by the number of sections a translation has: whole ones have a title and a
# preamble, those with 31 lack one of the two, those with 29 or 30 both. Shorter ones break off early.
SECTIONS_BEFORE_ARTICLE_1 = {29: 0, 30: 0, 31: 1}
# The one translation with a gap in the middle.
MISSING_ARTICLES = {"052": range(5, 12)}


@dataclass(frozen=True)
class Section:
    """One document: the title, the preamble or an article of one translation."""

    id: str
    article: int | None
    text: str


def main() -> None:
    """Read the arguments, split, write, and say what came out."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", type=Path, default=CORPUS, help="default: the corpus beside this script")
    parser.add_argument("--output", type=Path, required=True, help="new folder, for train/ and valid/")
    arguments = parser.parse_args()
    if not arguments.input.is_file():
        parser.error(f"{arguments.input}: no such file")
    if arguments.output.exists():
        parser.error(f"{arguments.output} exists already; remove it or choose another")

    train, valid = split(read_labels(arguments.input))
    with atomic_directory(arguments.output) as temporary:
        for part, labels in (("train", train), ("valid", valid)):
            (temporary / part).mkdir()
            for label, sections in labels.items():
                write_sections(temporary / part / f"{label}.jsonl", sections)
    print(f"{len(train)} labels in {arguments.output}")
    print(f"{describe(train)} to train on, {describe(valid)} held out")
    print(
        f"only trained on, having no held-out article: {', '.join(label for label in train if label not in valid)}"
    )


def read_labels(corpus: Path) -> dict[str, list[Section]]:
    """Sections by label (``eng_Latn``); several translations with one label follow each other."""
    translations: dict[str, list[dict[str, str]]] = defaultdict(list)
    with gzip.open(corpus, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            translations[row["code"]].append(row)
    labels: dict[str, list[Section]] = defaultdict(list)
    for code, rows in translations.items():
        articles = article_numbers(code, len(rows))
        label = f"{language_of(rows[0])}_{script_of(row['text'] for row in rows)}"
        labels[label] += [Section(row["id"], n, row["text"]) for row, n in zip(rows, articles, strict=True)]
    return dict(sorted(labels.items()))


def article_numbers(code: str, sections: int) -> list[int | None]:
    """Article number of each section of a translation; None for a title and a preamble."""
    before = SECTIONS_BEFORE_ARTICLE_1.get(sections, 2)
    missing = MISSING_ARTICLES.get(code, range(0))
    numbers = [number for number in range(1, LAST_ARTICLE + 1) if number not in missing]
    return [*[None] * before, *numbers][:sections]


def language_of(row: dict[str, str]) -> str:
    """ISO 639-3 code; ``und`` (undetermined) where the corpus has none or something else."""
    code = row.get("iso639_3") or ""
    return code if re.fullmatch("[a-z]{3}", code) else "und"


def script_of(texts: Iterable[str]) -> str:
    """ISO 15924 code of most letters; Jpan with kana among them, Kore for Hangul, Zyyy if there are none."""
    (script,) = scripts_of(["".join(texts)])
    return script or UNDETERMINED


def split(labels: dict[str, list[Section]]) -> tuple[dict[str, list[Section]], dict[str, list[Section]]]:
    """Training and held-out sections by label; a label without a held-out article is in the first only."""
    held_out = {
        label: [section for section in sections if section.article in HELD_OUT_ARTICLES]
        for label, sections in labels.items()
    }
    held_out_texts = {section.text for sections in held_out.values() for section in sections}
    train = {
        label: [
            section
            for section in sections
            if section.article not in HELD_OUT_ARTICLES and section.text not in held_out_texts
        ]
        for label, sections in labels.items()
    }
    return train, {label: sections for label, sections in held_out.items() if sections}


def write_sections(path: Path, sections: Iterable[Section]) -> None:
    """One JSON object a line."""
    lines = (json.dumps(vars(section), ensure_ascii=False) + "\n" for section in sections)
    path.write_text("".join(lines), encoding="utf-8")


def describe(labels: dict[str, list[Section]]) -> str:
    """Number of documents and their size."""
    sections = [section for part in labels.values() for section in part]
    return f"{len(sections):,} documents ({sum(len(section.text.encode()) for section in sections):,} bytes)"


if __name__ == "__main__":
    main()
