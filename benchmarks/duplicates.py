"""Duplicates: how fast texts are hashed, and a million documents grouped in bounded memory.

    python benchmarks/duplicates.py [--input corpus.jsonl.gz] [--documents 1000000] [--memory-mb 64]

Seconds are of the processor (one core), the best of three, so that other load on the machine changes little. The
documents of the second part are keys only, of parts of 20,000: a tenth are near-duplicates, which share four of 14
bands with another, and one cluster of a hundredth of all shares a band throughout. Memory is what a fresh process takes
beyond its imports, mapped pages of the files included (the system may drop those).
"""

import argparse
import gzip
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from timing import REPEATS, Start, fresh

from megatron_ext.corpus.duplicates.clusters import DuplicateClusters
from megatron_ext.corpus.duplicates.config import PRESETS
from megatron_ext.corpus.duplicates.content import content_hashes
from megatron_ext.corpus.duplicates.folding import folding
from megatron_ext.corpus.duplicates.minhash import signatures
from megatron_ext.corpus.duplicates.records import RecordFile, write_records
from megatron_ext.utils.atomic import write_text

SAMPLE = Path(__file__).parents[1] / "examples" / "udhr" / "udhr.jsonl.gz"
BATCH, PART = 500, 20_000  # documents
NEAR, LARGEST = 10, 100  # one document in 10 has a near-duplicate, one in 100 is of one cluster
BANDS, SHARED = 14, 4


@dataclass(frozen=True)
class Rate:
    """Text through one step."""

    step: str
    mb_per_second: float


def main() -> None:
    """Measure, print, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", type=Path, default=SAMPLE, help="gzip of JSON Lines with the key text")
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--memory-mb", type=int, default=64, help="for sorting keys")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/duplicates.json"))
    arguments = parser.parse_args()
    rates = text_rates(arguments.input)
    with tempfile.TemporaryDirectory(dir=arguments.output.parent) as name:
        files = synthetic_keys(Path(name), arguments.documents)
        grouped = fresh(group, files, arguments.documents, arguments.memory_mb << 20)
        key_bytes = sum(file.path.stat().st_size for file in files)
    show(rates, grouped, arguments.documents)
    result = {
        "rates": [asdict(rate) for rate in rates],
        "grouping": {
            "documents": arguments.documents,
            "keys_mb": key_bytes / 1e6,
            "sorting_memory_mb": arguments.memory_mb,
            **asdict(grouped),
        },
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {name: version(name) for name in ("megatron-ext", "numpy", "rensa")},
    }
    write_text(arguments.output, json.dumps(result, indent=1) + "\n")


def text_rates(path: Path) -> list[Rate]:
    """Of every step that touches the text, by words and by characters."""
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        texts = [json.loads(line)["text"] for line in stream]
    batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    fold = folding()

    def rate(step: str, work: Callable[[list[str]], object]) -> Rate:
        times = []
        for _ in range(REPEATS):
            start = time.process_time()
            for batch in batches:
                work(batch)
            times.append(time.process_time() - start)
        return Rate(step, megabytes / min(times))

    def shingled(batch: list[str], spaced: bool) -> None:
        fold.shingles(batch, np.full(len(batch), spaced), 5, 9)

    return [
        rate("content hashes", content_hashes),
        rate("shingles of 5 words", lambda batch: shingled(batch, True)),
        rate("shingles of 9 characters", lambda batch: shingled(batch, False)),
        *[
            rate(
                f"{name}: band hashes, {unit}",
                lambda batch, config=config, script=script: signatures(batch, [script] * len(batch), config),
            )
            for name, config in PRESETS.items()
            for unit, script in (("words", "Latn"), ("characters", "Hani"))
        ],
    ]


def synthetic_keys(folder: Path, num_documents: int) -> list[RecordFile]:
    """Files of random keys of which some are shared."""
    rng = np.random.default_rng(0)
    files = []
    for start in range(0, num_documents, PART):
        keys = rng.integers(1, 1 << 64, (min(PART, num_documents - start), BANDS), np.uint64)
        keys[NEAR // 2 :: NEAR, :SHARED] = keys[: len(keys) - NEAR // 2 : NEAR, :SHARED]
        keys[::LARGEST, -1] = 1
        files.append(RecordFile(folder / f"{start}.keys", start))
        write_records(files[-1].path, keys)
    return files


def group(files: list[RecordFile], num_documents: int, memory_bytes: int) -> None:
    """Find the clusters; fails if they are not those that were made."""
    clusters = DuplicateClusters(num_documents)
    clusters.join(files, memory_bytes)
    sizes = clusters.sizes()
    near, largest = num_documents // NEAR, num_documents // LARGEST
    if (int((sizes == 0).sum()), int(sizes.max())) != (near + largest - 1, 2 * largest):
        raise SystemExit(f"{(sizes == 0).sum()} duplicates, {sizes.max()} in the largest cluster: wrong")


def show(rates: list[Rate], grouped: Start, num_documents: int) -> None:
    """Print what was measured."""
    table = Table("step", "MB/s of text, one core")
    for rate in rates:
        table.add_row(rate.step, f"{rate.mb_per_second:.1f}")
    console = Console()
    console.print(table)
    console.print(
        f"{num_documents:,} documents grouped in {grouped.seconds:.1f} s, {grouped.megabytes:.0f} MB"
    )


if __name__ == "__main__":
    main()
