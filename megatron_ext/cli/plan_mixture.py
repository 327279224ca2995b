"""``megatron-ext plan-mixture``: from token counts to a blend that a run includes, before any GPU hour."""

import argparse
import math
from pathlib import Path

from megatron_ext.config.load import load_part, load_section
from megatron_ext.config.sections import TrainingConfig
from megatron_ext.corpus.counts import FILE_NAME
from megatron_ext.corpus.mixture.blend_file import as_yaml, can_be_read, with_paths
from megatron_ext.corpus.mixture.chart import as_html
from megatron_ext.corpus.mixture.config import BudgetConfig, MixtureConfig
from megatron_ext.corpus.mixture.plan import Budget, make_plan
from megatron_ext.corpus.mixture.sets import CountedSets, merged, read_corpus, read_tokenised
from megatron_ext.corpus.mixture.simulate import simulate
from megatron_ext.corpus.mixture.summary import as_json, as_text
from megatron_ext.corpus.mixture.table import Columns, read_table
from megatron_ext.errors import CorpusError
from megatron_ext.utils.atomic import write_text
from megatron_ext.utils.console import get_logger

logger = get_logger(__name__)

TABLES = (".csv", ".tsv", ".txt")

EPILOG = """\
example: the mixture of a corpus for a run of 12,000 steps, and the order in which the run is going to draw it
  python tools/plan_mixture.py data/corpus --mixture configs/recipes/emma500/mixture.yaml \\
      --run configs/runs/llama2_7b_256gpu.yaml --output mixtures/emma500 --simulate

example: from a table of counts, before there is any text
  python tools/plan_mixture.py counts.csv --mixture configs/recipes/emma500/mixture.yaml --tokens 100e9

--output gets plan.json, plan.txt, chart.html and, where the sets are tokenised (or --path says where they are
going to lie), blend.yaml, which a run names under `defaults:`.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options and the help."""
    parser.description = (
        "Plan how many tokens of each language a run reads, from what there is and a few rules."
    )
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "corpus",
        type=Path,
        nargs="+",
        metavar="CORPUS",
        help=f"{FILE_NAME} or its folder, a folder of tokenised sets, or a table (.csv, .tsv) with a header",
    )
    parser.add_argument("--mixture", type=Path, metavar="YAML", help="the rules; default: proportional")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for the plan's files")
    parser.add_argument(
        "--simulate", action="store_true", help="draw the run's whole order and compare it with the plan"
    )
    budget = parser.add_argument_group("how much is read; default: the mixture's budget")
    budget.add_argument("--tokens", type=float, metavar="N", help="such as 100e9")
    budget.add_argument("--train-iters", type=int, metavar="N", help="steps, with --global-batch-size")
    budget.add_argument("--global-batch-size", type=int, metavar="N", help="sequences of a step")
    budget.add_argument("--seq-length", type=int, metavar="N", help="tokens of a sequence; default: 4096")
    budget.add_argument("--run", type=Path, metavar="YAML", help="a run's steps, batch and sequence length")
    table = parser.add_argument_group("tables")
    for name in ("label", "tokens", "category"):
        table.add_argument(
            f"--{name}-column", metavar="NAME", help=f"the column of {name}, if not recognised"
        )
    table.add_argument(
        "--path", metavar="PATTERN", help="of datasets to come, such as data/train/{label}_text_document"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the plan and write its files."""
    columns = Columns(arguments.label_column, arguments.tokens_column, arguments.category_column)
    counted = merged([_read(path, columns) for path in arguments.corpus])
    if arguments.path is not None:
        counted = with_paths(counted, arguments.path)
    config = MixtureConfig() if arguments.mixture is None else load_section(arguments.mixture, MixtureConfig)
    try:
        plan = make_plan(counted, config, _budget(arguments, config.budget))
    except CorpusError as error:
        if arguments.mixture is None:
            raise
        raise CorpusError(
            "\n".join(f"{arguments.mixture}: {line}" for line in str(error).splitlines())
        ) from error
    print(as_text(plan), end="")
    text = as_text(plan, every_set=True)
    if arguments.simulate:
        simulated = simulate(plan).describe()
        print(simulated)
        text += f"{simulated}\n"
    if arguments.output is not None:
        files = {"plan.json": as_json(plan), "plan.txt": text, "chart.html": as_html(plan)}
        if can_be_read(plan):
            files["blend.yaml"] = as_yaml(plan)
        for name, content in files.items():
            write_text(arguments.output / name, content)
        print(f"wrote {', '.join(files)} to {arguments.output}")
        if "blend.yaml" not in files:
            print("no blend.yaml: the sets are not tokenised; --path says where they are going to lie")
    return 0


def _read(path: Path, columns: Columns) -> CountedSets:
    if path.suffix.lower() in TABLES:
        return read_table(path, columns)
    if path.is_dir() and not (path / FILE_NAME).exists():
        return read_tokenised(path)
    return read_corpus(path)


def _budget(arguments: argparse.Namespace, config: BudgetConfig) -> Budget:
    """The command line's, else the mixture's."""
    given = {
        name: getattr(arguments, name)
        for name in ("tokens", "train_iters", "global_batch_size", "seq_length")
        if getattr(arguments, name) is not None
    }
    if arguments.run is not None:
        if given:
            raise CorpusError(f"--run and --{next(iter(given)).replace('_', '-')}: give one of them")
        training, missing = load_part(arguments.run, "training", TrainingConfig)
        for problem in missing:  # such as the blend that is being planned
            logger.warning("%s; the run's steps are taken without it", problem)
        tokens = training.train_samples * training.seq_length
        return Budget(float(tokens), training.seq_length, training.global_batch_size)
    if "tokens" in given or "train_iters" in given:
        config = BudgetConfig(seq_length=config.seq_length)
    values = {**config.model_dump(exclude_unset=True), **given}
    for name, value in given.items():
        if not 0 < value < math.inf:
            raise CorpusError(f"--{name.replace('_', '-')} {value}: must be above 0")
    if ("train_iters" in values) != ("global_batch_size" in values) or (
        "train_iters" in values and "tokens" in values
    ):
        raise CorpusError("give --tokens, or --train-iters with --global-batch-size")
    config = BudgetConfig(**values)
    return Budget(config.total, config.seq_length, config.global_batch_size)
