"""Estimate a run before it is started: memory, step time and tokens/s of each GPU, and the layouts that are fastest.

  python tools/estimate.py configs/runs/llama2_7b_256gpu.yaml --gpu a100-80
  python tools/estimate.py configs/runs/llama2_7b_256gpu.yaml --gpu h100 --gpus 64 parallel.tensor_model_parallel_size=2
  python tools/estimate.py configs/runs/llama2_7b_256gpu.yaml --gpu h100 --trace
  python tools/estimate.py --check

It prints the plan of `launch --dry-run`, where the step's time goes, and the best layouts of the same model and
batch on as many GPUs. The model is analytic: --check shows how far it is from published speeds; --trace runs a step
of the real code on tensors without data, for one process of each pipeline stage, and counts what it allocates and
launches. Needs no GPU.
"""

import argparse
import sys

from rich.console import Console
from rich.table import Table

from megatron_ext.cli.plan import print_plan, table_of
from megatron_ext.cli.trace import trace_tables
from megatron_ext.config.load import load_run_config, split_sources
from megatron_ext.config.sections import RunConfig
from megatron_ext.errors import ConfigError
from megatron_ext.model.calibration import held_out_error
from megatron_ext.model.flops import num_parameters
from megatron_ext.model.hardware import GPUS, GPUS_PER_NODE, Gpu, find_gpu
from megatron_ext.model.layouts import Plan, rank
from megatron_ext.model.memory import GIB
from megatron_ext.model.published import PUBLISHED, SOURCES, Published
from megatron_ext.utils.console import get_logger

logger = get_logger(__name__)

WIDTH = 120  # where there is no terminal: every row in one line
ALIKE = 0.25  # relative difference in parameters up to which a published speed is shown beside a run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``estimate``."""
    parser.add_argument(
        "sources",
        nargs="*",
        metavar="CONFIG.yaml | section.key=value",
        help="configuration files and overrides, as for launch",
    )
    parser.add_argument("--gpu", default="a100-80", help=f"one of {', '.join(GPUS)} (default: a100-80)")
    parser.add_argument(
        "--gpus", type=int, metavar="N", help="how many (default: as the run's launch section says)"
    )
    parser.add_argument(
        "--top", type=int, default=10, metavar="N", help="layouts to show (default: 10; 0: none)"
    )
    parser.add_argument("--trace", action="store_true", help="run a step without data, and count")
    parser.add_argument("--check", action="store_true", help="compare the model with published speeds")


def run(arguments: argparse.Namespace) -> int:
    """Print what is asked for."""
    console = Console(soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH)
    if arguments.check:
        console.print(_published(PUBLISHED, "published speeds and the model's"))
        console.print(_errors())
        console.print(_sources())
        if not arguments.sources:
            return 0
    gpu = find_gpu(arguments.gpu)
    files, overrides = split_sources(arguments.sources)
    config = load_run_config(files, [*overrides, *_launch(arguments.gpus)])
    if config.training.precision == "fp32" or config.training.fp8 is not None:
        logger.warning(
            "products are estimated in 16 bits: fp32 is slower, and fp8 faster, than what is shown"
        )
    plan = Plan.of(config, gpu)
    print_plan(config)
    console.print(_step(plan, gpu))
    alike = [row for row in PUBLISHED if _alike(row, config, gpu)]
    if alike:
        console.print(_published(alike, "published for models of this size on this kind of GPU"))
    if arguments.trace:
        for table in trace_tables(config, gpu):
            console.print(table)
    if arguments.top > 0:
        console.print(_ranking(rank(config, gpu, arguments.top), config, gpu))
    return 0


def _launch(gpus: int | None) -> list[str]:
    """Overrides for a number of GPUs in nodes of eight."""
    if gpus is None:
        return []
    if gpus < 1 or (gpus > GPUS_PER_NODE and gpus % GPUS_PER_NODE):
        raise ConfigError(
            f"--gpus {gpus}: up to {GPUS_PER_NODE}, or a multiple of {GPUS_PER_NODE}, are whole nodes"
        )
    return [
        f"launch.nnodes={max(1, gpus // GPUS_PER_NODE)}",
        f"launch.nproc_per_node={min(gpus, GPUS_PER_NODE)}",
    ]


def _step(plan: Plan, gpu: Gpu) -> Table:
    """Where the step's seconds go."""
    table = table_of(f"one step on {gpu.name}, estimated", "part", "seconds", "share")
    for name, seconds in plan.time.rows():
        table.add_row(name, f"{seconds:,.4f}", f"{seconds / plan.time.total:.1%}")
    table.add_row("total", f"{plan.time.total:,.4f}", "")
    rate = plan.speed
    table.add_row("tokens/s of each GPU", f"{rate.tokens_per_second_per_gpu:,.0f}", "")
    table.add_row("MFU, full / causal attention", f"{rate.mfu:.1%} / {rate.causal_mfu:.1%}", "")
    fits = f"{plan.memory.total / GIB:,.1f} of {gpu.memory_gib} GiB"
    table.add_row("memory", fits if plan.fits(gpu) else f"{fits}: does not fit", "")
    return table


def _ranking(plans: list[Plan], config: RunConfig, gpu: Gpu) -> Table | str:
    title = f"fastest layouts on {config.launch.world_size} × {gpu.name}"
    if not plans:
        return f"{title}: none fits; take more GPUs or larger ones, or smaller states (optimizer.exp_avg_dtype …)"
    table = table_of(
        title, "", "layout", "micro-batch", "recomputed", "GiB", "tokens/s/GPU", "MFU", "waiting"
    )
    for number, plan in enumerate(plans, start=1):
        time = plan.time
        waiting = time.tensor + time.context + time.pipeline + time.data + time.host + time.bubble
        table.add_row(
            str(number),
            plan.layout,
            str(plan.run.training.micro_batch_size),
            plan.recompute,
            f"{plan.memory.total / GIB:.1f}",
            f"{plan.speed.tokens_per_second_per_gpu:,.0f}",
            f"{plan.speed.mfu:.1%}",
            f"{waiting / time.total:.1%}",
        )
    return table


def _alike(row: Published, config: RunConfig, gpu: Gpu) -> bool:
    difference = abs(num_parameters(row.model) / num_parameters(config.model) - 1)
    return difference < ALIKE and GPUS[row.gpu].peak_tflops == gpu.peak_tflops


def _published(rows: tuple[Published, ...] | list[Published], title: str) -> Table:
    table = table_of(title, "who", "GPUs", "sequence", "published", "model", "error", "fitted to others")
    for row in rows:
        table.add_row(
            row.who,
            f"{row.gpus} × {row.gpu}",
            f"{row.micro_batch_size} × {row.seq_length}",
            f"{row.tokens_per_second_per_gpu:,.0f}",
            f"{row.estimate():,.0f}",
            f"{row.error():+.1%}",
            f"{held_out_error(row):+.1%}",
        )
    return table


def _errors() -> Table:
    """Of each kind of GPU, on the rows its constant was fitted to and on those of code bases it was not."""
    table = table_of(
        "errors: one constant of each kind of GPU is fitted to the rows above, or to other code bases' alone",
        "kind", "rows", "fitted to", "mean", "mean of absolute values", "largest",
    )  # fmt: skip
    for kind, prefix in (("A100", "a"), ("H100 and H200", "h")):
        rows = [row for row in PUBLISHED if row.gpu.startswith(prefix)]
        for fit, errors in (
            ("these rows", [row.error() for row in rows]),
            ("other code bases", [held_out_error(row) for row in rows]),
        ):
            absolute = [abs(error) for error in errors]
            table.add_row(
                kind,
                str(len(rows)),
                fit,
                f"{sum(errors) / len(errors):+.1%}",
                f"{sum(absolute) / len(absolute):.1%}",
                f"{max(absolute):.1%}",
            )
    return table


def _sources() -> Table:
    table = table_of("sources", "who", "where")
    for name, source in SOURCES.items():
        table.add_row(name, source)
    return table
