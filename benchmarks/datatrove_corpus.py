"""What benchmarks/corpus.py runs beside ours, in the environment that has datatrove: its steps on the same files.

    python benchmarks/datatrove_corpus.py FOLDER_OF_JSONL OUTPUT --workers 2 [--minhash]

Cleaning is FineWeb2's: ftfy, Gopher's repetition and quality filters (without stop words, which few languages have
lists of), FineWeb's filter, with datatrove's tokenizer of English words for all text, whose models of other languages
are separate packages. The labels and exact duplicates that ours finds beside it have no counterpart here. MinHash is
its four steps. Writes the seconds of each to OUTPUT/seconds.json.
"""

import argparse
import json
import time
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.filters import FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.formatters import FTFYFormatter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter

BUCKETS = 14


def main() -> None:
    """Run the steps one after the other, as their documentation does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--minhash", action="store_true")
    arguments = parser.parse_args()
    pipeline = [JsonlReader(str(arguments.input)), *cleaning(), writer(arguments.output, "clean")]
    seconds = {"clean": run(arguments, "clean", pipeline)}
    if arguments.minhash:
        seconds |= minhash(arguments)
    (arguments.output / "seconds.json").write_text(json.dumps(seconds), encoding="utf-8")


def cleaning() -> list[object]:
    """Filters in the order of FineWeb2's pipeline."""
    return [
        FTFYFormatter(),
        GopherRepetitionFilter(),
        GopherQualityFilter(min_stop_words=0),
        FineWebQualityFilter(),
    ]


def minhash(arguments: argparse.Namespace) -> dict[str, float]:
    """Signatures, buckets, clusters, and the documents that stay."""
    config, folder = MinhashConfig(num_buckets=BUCKETS), arguments.output
    clean, signatures, buckets, clusters = (
        str(folder / name) for name in ("clean", "signatures", "buckets", "clusters")
    )
    steps = {
        "signatures": ([JsonlReader(clean), MinhashDedupSignature(signatures, config)], None),
        "buckets": ([MinhashDedupBuckets(signatures, buckets, config=config)], BUCKETS),
        "clusters": ([MinhashDedupCluster(buckets, clusters, config=config)], 1),
        "filter": ([JsonlReader(clean), MinhashDedupFilter(clusters), writer(folder, "unique")], None),
    }
    return {name: run(arguments, name, pipeline, tasks) for name, (pipeline, tasks) in steps.items()}


def writer(folder: Path, name: str) -> JsonlWriter:
    """JSON Lines, uncompressed, which costs least (ours compresses)."""
    return JsonlWriter(str(folder / name), compression=None, output_filename="${rank}.jsonl")


def run(arguments: argparse.Namespace, name: str, pipeline: list[object], tasks: int | None = None) -> float:
    """Seconds of one step; as many tasks as there are files, if nothing else is said."""
    count = tasks or len(list(arguments.input.glob("*.jsonl")))
    started = time.perf_counter()
    LocalPipelineExecutor(
        pipeline=pipeline,
        tasks=count,
        workers=arguments.workers,
        logging_dir=str(arguments.output / "logs" / name),
    ).run()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
