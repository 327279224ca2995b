"""Cleaning: how fast texts are mended and filtered, beside datatrove's filters on the same text.

    python benchmarks/cleaning.py [--input corpus.jsonl.gz]

Seconds are of the processor (one core), the best of three, so that other load on the machine changes little. datatrove
does what FineWeb2's pipeline does: GopherRepetitionFilter, FineWebQualityFilter, GopherQualityFilter, FTFYFormatter.
Words are split at white space for it too, in place of its tokenizers, which would take most of its time.
"""

import argparse
import gzip
import json
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import datatrove.pipeline.filters.fineweb_quality_filter as fineweb
import datatrove.pipeline.filters.gopher_quality_filter as gopher_quality
import datatrove.pipeline.filters.gopher_repetition_filter as gopher_repetition
import numpy as np
from datatrove.data import Document
from datatrove.pipeline.formatters import FTFYFormatter
from rich.console import Console
from rich.table import Table
from timing import REPEATS

from megatron_ext.corpus.cleaning import Cleaner, CleaningConfig
from megatron_ext.corpus.cleaning.characters import character_classes
from megatron_ext.corpus.labels.detect import scripts_of
from megatron_ext.utils.atomic import write_text

SAMPLE = Path(__file__).parents[1] / "examples" / "udhr" / "udhr.jsonl.gz"
BATCH = 500  # documents


def main() -> None:
    """Measure, print, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", type=Path, default=SAMPLE, help="gzip of JSON Lines with the key text")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/cleaning.json"))
    arguments = parser.parse_args()
    with gzip.open(arguments.input, "rt", encoding="utf-8") as stream:
        texts = [json.loads(line)["text"] for line in stream]
    rates = measure(texts)
    table = Table("step", "MB/s of text, one core")
    for step, rate in rates.items():
        table.add_row(step, f"{rate:.1f}")
    Console().print(table)
    result = {
        "mb_per_second": rates,
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {name: version(name) for name in ("megatron-ext", "datatrove", "ftfy", "numpy")},
    }
    write_text(arguments.output, json.dumps(result, indent=1) + "\n")


def measure(texts: list[str]) -> dict[str, float]:
    """MB/s of each step."""
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    scripts = scripts_of(texts)
    batches = [
        (texts[start : start + BATCH], scripts[start : start + BATCH])
        for start in range(0, len(texts), BATCH)
    ]
    cleaner, classes, theirs = Cleaner(CleaningConfig()), character_classes(), datatrove_steps()

    def rate(work: Callable[[list[str], list[str | None]], object]) -> float:
        times = []
        for _ in range(REPEATS):
            start = time.process_time()
            for batch in batches:
                work(*batch)
            times.append(time.process_time() - start)
        return megabytes / min(times)

    def count(some: list[str], _scripts: list[str | None]) -> None:
        classes.quality(some, np.zeros(len(some), np.int64), np.full(len(some), 30))

    return {
        "looking for defects": rate(lambda some, _: classes.defects(some)),
        "counting what rules look at": rate(count),
        "cleaning": rate(lambda some, scripts: cleaner.clean(some, scripts, "mono")),
        "datatrove": rate(lambda some, _: [theirs(text) for text in some]),
    }


def datatrove_steps() -> Callable[[str], None]:
    """FineWeb2's filters and ftfy, each on every text: most texts pass all of them."""
    modules: tuple[ModuleType, ...] = (fineweb, gopher_quality, gopher_repetition)
    for module in modules:
        module.split_into_words = lambda text, _language: text.split()  # type: ignore[attr-defined]
    filters = [
        gopher_repetition.GopherRepetitionFilter(dup_para_frac=0, dup_line_char_frac=0, dup_para_char_frac=0),
        fineweb.FineWebQualityFilter(short_line_thr=999, char_duplicates_ratio=0.1),
        gopher_quality.GopherQualityFilter(min_doc_words=1, min_stop_words=None),
    ]
    formatter = FTFYFormatter()

    def run(text: str) -> None:
        document = Document(text=text, id="")
        for one in filters:
            one.filter(document)
        formatter.format(text)

    return run


if __name__ == "__main__":
    main()
