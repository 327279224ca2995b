"""EMMA-500's run rehearsed at its full size without its text: counts → plan → blend → first and last batches.

    python benchmarks/mixture_rehearsal.py [--table mala-monolingual.csv] [--folder D] [--output FILE.json]

The corpus has 546 sets and 74.26 B tokens, as the official token table counts them (--table; without it, as many sets
and tokens in the same tiers). Indices are real, with 123 M documents in 2.5 GB of .idx; the tokens are holes of sparse
files, which take no disk. The run has 12,000 steps of 4,096 × 4,096 tokens. Each part runs in a fresh process, as a
person's commands do; memory is what it takes beyond its imports, mapped pages of files included.
"""

import argparse
import contextlib
import io
import json
import os
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from sparse_sets import quiet, write_set
from timing import Start, cpu, fresh, seconds

from megatron_ext.cli.main import run_verb
from megatron_ext.config.load import load_run_config
from megatron_ext.config.sections import RunConfig
from megatron_ext.corpus.counts import Corpus, PartCounts, SetCounts
from megatron_ext.corpus.mixture.table import Columns, read_table
from megatron_ext.data.build import build_datasets
from megatron_ext.utils.atomic import write_text

ROOT = Path(__file__).parents[1]
RUN = ROOT / "configs/runs/llama2_7b_256gpu.yaml"
MIXTURE = ROOT / "configs/recipes/emma500/mixture.yaml"
TRAINED = 100_000  # whitespace tokens of the smallest label that is trained on
# Labels and tokens of each tier, as the official table has them, and how many times larger its largest label is here
# than its smallest, so that all lie between the thresholds.
TIERS = ((27, 43.41e9, 2.2), (79, 27.52e9, 6), (68, 2.747e9, 6), (162, 0.482e9, 6), (210, 0.0975e9, 6))
VALID_TOKENS = 10_000


@dataclass(frozen=True)
class Part:
    """One line of the table."""

    name: str
    seconds: float
    megabytes: float | None = None


def main() -> None:
    """Rehearse, print a table, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--table", type=Path, metavar="CSV", help="the official token table of the MaLA corpus"
    )
    parser.add_argument("--folder", type=Path, metavar="D", help="for 2.5 GB; default: the system's")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/mixture_rehearsal.json"))
    arguments = parser.parse_args()
    labels = official(arguments.table) if arguments.table else generated()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        parts, simulated = rehearse(folder, labels)
        on_disk = sum(512 * path.stat().st_blocks for path in folder.rglob("*") if path.is_file())
    table = Table("", "s", "MB")
    for part in parts:
        table.add_row(
            part.name, f"{part.seconds:.3g}", "" if part.megabytes is None else f"{part.megabytes:,.0f}"
        )
    Console(width=120).print(table)
    print(simulated)
    record = {
        "machine": {"cpu": cpu(), "cores": os.cpu_count()},
        "versions": {name: version(name) for name in ("megatron-ext", "numpy")},
        "labels": "official token table" if arguments.table else "generated in the same tiers",
        "sets": len(labels),
        "tokens": sum(labels.values()),
        "disk_gb": round(on_disk / 1e9, 2),
        "simulation": simulated,
        "parts": [asdict(part) for part in parts],
    }
    write_text(arguments.output, json.dumps(record, indent=2) + "\n")
    print(f"wrote {arguments.output}")


def official(table: Path) -> dict[str, int]:
    """Tokens of the labels that were trained on."""
    return {one.label: one.tokens for one in read_table(table, Columns()).sets if one.tokens >= TRAINED}


def generated() -> dict[str, int]:
    """As many labels as in the official table and as many tokens in each tier; the largest is English."""
    tokens = []
    for labels, total, spread in TIERS:
        sizes = np.geomspace(spread, 1, labels)
        tokens += np.round(total * sizes / sizes.sum()).astype(int).tolist()
    return {"eng_Latn" if index == 0 else f"l{index:03}_Latn": count for index, count in enumerate(tokens)}


def rehearse(folder: Path, labels: dict[str, int]) -> tuple[list[Part], str]:
    """All parts, and what the simulation found."""
    parts = [Part("write the synthetic corpus", seconds(lambda: write_corpus(folder, labels)))]
    plan = folder / "plan"
    common = [str(folder), "--mixture", str(MIXTURE), "--run", str(RUN), "--output", str(plan)]
    parts.append(_part("plan_mixture: counts to plan, chart and blend.yaml", fresh(planning, common)))
    parts.append(
        _part("the same with --simulate: 49,152,000 draws", fresh(planning, [*common, "--simulate"]))
    )
    simulated = (plan / "plan.txt").read_text(encoding="utf-8").splitlines()[-1].replace(f"{folder}/", "")
    parts.append(_part("read the run's YAML with the blend", fresh(configured, plan)))
    parts.append(_part("from YAML to the first global batch", fresh(first_batch, plan, before=quiet)))
    parts.append(
        _part("from YAML to the last global batch, no checkpoint", fresh(last_batch, plan, before=quiet))
    )
    return parts, simulated


def write_corpus(folder: Path, labels: dict[str, int]) -> None:
    """Sets with a held-out part each, and their counts; a whitespace token stands for a token."""
    sets = []
    for part in ("train", "valid"):
        (folder / part).mkdir()
    for label, tokens in labels.items():
        write_set(folder / "train" / label, tokens)
        write_set(folder / "valid" / label, VALID_TOKENS)
        train = PartCounts(whitespace_tokens=tokens, tokens=tokens, datasets=(f"train/{label}",))
        valid = PartCounts(whitespace_tokens=VALID_TOKENS, tokens=VALID_TOKENS, datasets=(f"valid/{label}",))
        sets.append(SetCounts(category="mono", label=label, train=train, valid=valid))
    Corpus(sets=tuple(sets)).write(folder)


def planning(arguments: list[str]) -> None:
    """As a person does it."""
    with contextlib.redirect_stdout(io.StringIO()):
        if run_verb("plan-mixture", arguments) != 0:
            raise SystemExit("the plan failed")


def configured(plan: Path) -> RunConfig:
    """The run of the recipe, with the blend of the plan."""
    return load_run_config([RUN, plan / "blend.yaml"])


def first_batch(plan: Path) -> None:
    """What the whole cluster reads in the first step, in one process."""
    read_batch(configured(plan), 0)


def last_batch(plan: Path) -> None:
    """The 12,000th step's, found by drawing what comes before it."""
    run = configured(plan)
    read_batch(run, run.training.train_samples - run.training.global_batch_size)


def read_batch(run: RunConfig, position: int) -> None:
    """Build the data of the run as a rank does, and read a global batch."""
    training = run.training
    train = build_datasets(
        run.data,
        seq_length=training.seq_length,
        seed=training.seed,
        train_samples=training.train_samples,
        eod_id=None,
    ).train
    tokens, real = train.gather(*train.blend(position).draw(training.global_batch_size))
    if tokens.shape != (training.global_batch_size, training.seq_length + 1) or not real.all():
        raise SystemExit("the batch is not complete")


def _part(name: str, start: Start) -> Part:
    return Part(name, start.seconds, start.megabytes)


if __name__ == "__main__":
    main()
