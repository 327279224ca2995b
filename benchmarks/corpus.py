"""Raw text to shards: ours step by step, and datatrove on the same files in the same run.

    python benchmarks/corpus.py [--input FOLDER] [--workers 2] [--datatrove VENV/bin/python]

FOLDER holds .jsonl files with the keys text and lang. Everything runs as commands of their own, in turn, so that their
times hold all of it: the start of Python and its workers, reading, writing. Of a few repetitions of ours the best
counts. Without arguments, the text is that of the example in this repository: start-up is then most of it.
benchmarks/results holds figures of the help of LibreOffice in 36 languages and of man pages in 9 (the pages of Debian's
libreoffice-help-* and manpages-*, one a line), spread over 16 files.
"""

import argparse
import gzip
import json
import os
import platform
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from preprocess import Run, text_bytes, timed
from rich.console import Console
from rich.table import Table

from megatron_ext.corpus.builder.build import build_corpus
from megatron_ext.corpus.manifest import read_manifest
from megatron_ext.utils.atomic import write_text

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "examples" / "udhr" / "udhr.jsonl.gz"
PACKAGES = ("megatron-ext", "numpy", "ftfy", "rensa", "langcodes")
VARIANTS: dict[str, Any] = {"exact": None, "minhash": "fineweb2"}  # and what `duplicates.minhash` is for it
STEP = "--one-build"


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--input", type=Path, help="folder of .jsonl with text and lang (default: the example's)"
    )
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--datatrove", metavar="PYTHON", help="of an environment with datatrove and ftfy")
    parser.add_argument(
        "--datatrove-files",
        type=int,
        default=2,
        metavar="N",
        help="of the input, at least one a worker; all would take long",
    )
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/corpus.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.output.parent) as name:
        folder = Path(name)
        source = arguments.input or unpacked(folder / "in")
        files = sorted(source.glob("*.jsonl"))
        part = linked(files[: arguments.datatrove_files], folder / "part")
        figures = {variant: measure(variant, source, part, folder, arguments) for variant in VARIANTS}
        text_mb = {who: megabytes(own) for who, own in (("megatron_ext", source), ("datatrove", part))}
    Console().print(table_of(figures, text_mb, arguments.workers))
    record = {
        "command": shlex.join(["python", *sys.argv]),
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "text_mb": text_mb,
        "workers": arguments.workers,
        "variants": figures,
    }
    write_text(arguments.output, json.dumps(record, indent=2) + "\n")
    print(f"wrote {arguments.output}")


def table_of(
    figures: dict[str, dict[str, list[dict[str, Any]]]], text_mb: dict[str, float], workers: int
) -> Table:
    """MB of text a second, of the best run."""
    table = Table(f"{workers} workers", "MB of text", *(f"{name}, MB/s" for name in figures))
    for who, size in text_mb.items():
        best = [min((run["seconds"] for run in runs[who]), default=None) for runs in figures.values()]
        table.add_row(who, f"{size:.0f}", *("" if one is None else f"{size / one:.2f}" for one in best))
    return table


def measure(
    variant: str, source: Path, part: Path, folder: Path, arguments: argparse.Namespace
) -> dict[str, list[dict[str, Any]]]:
    """Runs of both, each with its seconds by step: ours on all text, datatrove once on a part of it."""
    runs: dict[str, list[dict[str, Any]]] = {"megatron_ext": [], "datatrove": []}
    workers = str(arguments.workers)
    for number in range(arguments.repeats):
        ours = folder / f"{variant}-{number}"
        manifest = write_manifest(ours, source, VARIANTS[variant])
        runs["megatron_ext"].append(as_dict(timed([__file__, STEP, str(manifest), workers]), ours))
    if arguments.datatrove:
        theirs = folder / f"{variant}-datatrove"
        script = str(ROOT / "benchmarks" / "datatrove_corpus.py")
        options = ["--workers", workers, *(["--minhash"] if variant == "minhash" else [])]
        run = timed([script, str(part), str(theirs), *options], arguments.datatrove)
        own = as_dict(run, theirs)  # its workers are no children that are waited for, so only time is known
        runs["datatrove"].append({key: own[key] for key in ("seconds", "steps")})
    return runs


def linked(files: Sequence[Path], folder: Path) -> Path:
    """A folder with these files only."""
    folder.mkdir()
    for path in files:
        (folder / path.name).symlink_to(path.resolve())
    return folder


def megabytes(folder: Path) -> float:
    """UTF-8 of the texts."""
    return sum(text_bytes(path) for path in folder.glob("*.jsonl")) / 1e6


def as_dict(run: Run, folder: Path) -> dict[str, Any]:
    """What was measured from outside and inside."""
    return asdict(run) | {"steps": json.loads((folder / "seconds.json").read_text(encoding="utf-8"))}


def write_manifest(folder: Path, source: Path, minhash: str | None) -> Path:
    """Labels, cleaning and exact duplicates, and near-duplicates or not."""
    folder.mkdir()
    manifest = {
        "name": "benchmark",
        "output": str(folder / "corpus"),
        "sources": [{"name": "text", "files": f"{source}/*.jsonl", "language": {"field": "lang"}}],
        "duplicates": {"minhash": minhash},
    }
    path = folder / "corpus.yaml"
    path.write_text(yaml.safe_dump(manifest), encoding="utf-8")
    return path


def one_build(manifest: Path, workers: int) -> None:
    """A build in a process of its own, which leaves its seconds by step beside the manifest."""
    report = build_corpus(read_manifest(manifest), workers=workers)
    kept = sum(sum(one.sources.values()) for one in report.corpus.sets)
    steps = report.seconds | {"documents kept": kept, "removed": report.corpus.removed}
    manifest.with_name("seconds.json").write_text(json.dumps(steps), encoding="utf-8")


def unpacked(folder: Path) -> Path:
    """The sample, with its codes under the key lang."""
    folder.mkdir()
    with gzip.open(SAMPLE, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    content = [json.dumps({"text": row["text"], "lang": row["iso639_3"] or "und"}) for row in rows]
    (folder / "udhr.jsonl").write_text("\n".join(content), encoding="utf-8")
    return folder


def start(arguments: Sequence[str]) -> None:
    """One build, where this script itself asks for it, else all."""
    if arguments[:1] == [STEP]:
        one_build(Path(arguments[1]), int(arguments[2]))
    else:
        main()


if __name__ == "__main__":
    start(sys.argv[1:])
