"""The data path beside megatron-core's, in one run.

    python benchmarks/data.py [--full] [--output benchmarks/results/data.json]

Each figure is the best of a few repetitions, ours and megatron-core's in turn, and how many times better ours is.
The blend of EMMA-500 and the corpus it is read from take megatron-core minutes: without --full they are a tenth of
their size, which the names of the figures say. Samples are what each hands to training: rows of uint16 in batches
here, which the device widens and splits into labels; there int64 tokens, labels and masks, one sample at a time.
"""

import argparse
import json
import os
import tempfile
from importlib.metadata import version
from pathlib import Path

import data_blend
import data_corpus
import data_samples
from rich.console import Console
from rich.table import Table
from timing import Figure, cpu

from megatron_ext.utils.atomic import write_text

FRACTION = 0.1  # of the sizes that take minutes, unless --full is given
WIDTH = 130


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="the whole size; takes minutes and 4 GB of disk")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/data.json"))
    arguments = parser.parse_args()
    fraction = 1.0 if arguments.full else FRACTION
    with tempfile.TemporaryDirectory() as folder:
        figures = data_samples.figures(Path(folder), fraction)
        figures += data_blend.figures(fraction)
        figures += data_corpus.figures(Path(folder), fraction)
    Console(width=WIDTH).print(table(figures))
    write_text(arguments.output, json.dumps(record(figures, fraction), indent=2) + "\n")
    print(f"wrote {arguments.output}")


def table(figures: list[Figure]) -> Table:
    """A line a figure."""
    lines = Table("", "unit", "megatron_ext", "megatron-core", "times better")
    for figure in figures:
        lines.add_row(figure.name, figure.unit, shown(figure.ours), shown(figure.theirs), shown(figure.ratio))
    return lines


def shown(value: float) -> str:
    """Three significant digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def record(figures: list[Figure], fraction: float) -> dict[str, object]:
    """What is kept of a run."""
    packages = ("megatron-ext", "megatron-core", "numpy", "torch")
    return {
        "machine": {"cpu": cpu(), "cores": os.cpu_count()},
        "versions": {name: version(name) for name in packages},
        "fraction": fraction,
        "figures": [
            {
                "name": figure.name,
                "unit": figure.unit,
                "megatron_ext": figure.ours,
                "megatron_core": figure.theirs,
                "times_better": figure.ratio,
            }
            for figure in figures
        ],
    }


if __name__ == "__main__":
    main()
