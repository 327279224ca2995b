"""Tokenising beside Megatron-LM's worker pool, in one run: from a file of text to the dataset on disk.

    python benchmarks/preprocess.py [--input corpus.jsonl --tokenizer-model tokenizer.model] [--workers 2]

Both run as commands of their own, in turn, so their times hold all of it: the start of Python, reading, tokenising,
writing. Their files have to be equal, byte for byte. Of a few repetitions the best counts, for each. Without
arguments, the text is that of the example in this repository, which is small: start-up is then much of it.
benchmarks/results holds figures of the help of LibreOffice in 34 languages (the pages of Debian's
libreoffice-help-*, one a line) with 32,000 pieces of ``examples/udhr/train_tokenizer.py``, trained on every 16th line.
"""

import argparse
import filecmp
import gzip
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from megatron_ext.utils.atomic import write_text

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "examples" / "udhr" / "udhr.jsonl.gz"
PACKAGES = ("megatron-ext", "megatron-core", "sentencepiece", "numpy", "torch")


@dataclass(frozen=True)
class Run:
    """One command that tokenized the text."""

    seconds: float
    cpu_seconds: float  # of all its processes: what other load on the machine changes least
    peak_mb: float  # of its largest process


def main() -> None:
    """Measure, compare the files, print a table, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", type=Path, help="JSON Lines with the key text (default: the example's)")
    parser.add_argument(
        "--tokenizer-model", type=Path, help="SentencePiece model (default: trained on the text)"
    )
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/preprocess.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.output.parent) as name:
        folder = Path(name)
        source = arguments.input or unpacked(SAMPLE, folder)
        model = arguments.tokenizer_model or trained(source, folder)
        text_mb, runs = text_bytes(source) / 1e6, measure(source, model, folder, arguments)
    ours, theirs = (min(part, key=lambda run: run.seconds) for part in runs)
    table = Table(
        f"{text_mb:.0f} MB of text, {arguments.workers} workers", "megatron_ext", "Megatron-LM", "ratio"
    )
    rates = (text_mb / ours.seconds, text_mb / theirs.seconds)
    table.add_row("MB of text a second", f"{rates[0]:.1f}", f"{rates[1]:.1f}", f"{rates[0] / rates[1]:.1f}")
    table.add_row("seconds", f"{ours.seconds:.2f}", f"{theirs.seconds:.2f}", "")
    table.add_row(
        "CPU seconds",
        f"{ours.cpu_seconds:.2f}",
        f"{theirs.cpu_seconds:.2f}",
        f"{theirs.cpu_seconds / ours.cpu_seconds:.1f}",
    )
    table.add_row("peak of the largest process, MB", f"{ours.peak_mb:.0f}", f"{theirs.peak_mb:.0f}", "")
    Console().print(table)
    record = {
        "command": shlex.join(["python", *sys.argv]),
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "text_mb": text_mb,
        "workers": arguments.workers,
        "megatron_ext": {"mb_per_second": rates[0], "runs": [asdict(run) for run in runs[0]]},
        "megatron_lm": {"mb_per_second": rates[1], "runs": [asdict(run) for run in runs[1]]},
        "ratio": rates[0] / rates[1],
        "cpu_ratio": theirs.cpu_seconds / ours.cpu_seconds,
        "files_equal": True,
    }
    write_text(arguments.output, json.dumps(record, indent=2) + "\n")
    print(f"the files are equal; wrote {arguments.output}")


def measure(
    source: Path, model: Path, folder: Path, arguments: argparse.Namespace
) -> tuple[list[Run], list[Run]]:
    """Runs of both in turn; after each pair the files are compared."""
    workers = str(arguments.workers)
    ours = [
        str(ROOT / "tools" / "preprocess_data.py"), "--input", str(source), "--output-prefix", str(folder / "ours"),
        "--tokenizer-type", "SentencePieceTokenizer", "--tokenizer-model", str(model), "--append-eod", "--overwrite",
        "--workers", workers,
    ]  # fmt: skip
    peer = ROOT / "benchmarks" / "megatron_preprocess.py"
    theirs = [str(peer), str(source), str(model), str(folder / "theirs"), "--workers", workers]
    runs: tuple[list[Run], list[Run]] = ([], [])
    for _ in range(arguments.repeats):
        for part, command in zip(runs, (ours, theirs), strict=True):
            part.append(timed(command))
        for suffix in (".bin", ".idx"):
            written = (folder / f"{name}{suffix}" for name in ("ours_text_document", "theirs"))
            if not filecmp.cmp(*written, shallow=False):
                sys.exit(f"the {suffix} files differ: the figures mean nothing")
    return runs


def timed(command: Sequence[str], python: str = sys.executable) -> Run:
    """Run a Python script to its end; its children count for memory as far as it waits for them."""
    start = time.perf_counter()
    process = subprocess.Popen([python, "-W", "ignore", *command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"failed: {shlex.join(command)}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e3)


def text_bytes(source: Path) -> int:
    """UTF-8 bytes of the texts, without the JSON around them."""
    with source.open(encoding="utf-8") as lines:
        return sum(len(json.loads(line)["text"].encode()) for line in lines)


def unpacked(source: Path, folder: Path) -> Path:
    """The file without its compression."""
    plain = folder / source.stem
    plain.write_bytes(gzip.decompress(source.read_bytes()))
    return plain


def trained(source: Path, folder: Path) -> Path:
    """A small SentencePiece BPE model with Llama 2's settings, of the text itself."""
    model = folder / "tokenizer.model"
    script = ROOT / "examples" / "udhr" / "train_tokenizer.py"
    subprocess.run(
        [sys.executable, str(script), "--input", str(source), "--output", str(model)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return model


if __name__ == "__main__":
    main()
