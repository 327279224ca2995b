"""Time real training steps on synthetic tokens: tokens/s, TFLOP/s, MFU, memory, and where the time goes.

  python tools/benchmark_training.py --model llama2_7b --num-layers 8 --micro-batch-size 1 --seq-length 4096
  python tools/benchmark_training.py --model llama2_7b --peers transformers liger
  torchrun --nproc-per-node 8 tools/benchmark_training.py --model llama2_7b configs/parallel/data_parallel.yaml
  python tools/benchmark_training.py --model llama2_7b --host-overhead --gpu h100
  python tools/benchmark_training.py --model llama2_7b --num-layers 8 --seq-length 512 --cuda-graphs

The steps are those of `train`: the same model, schedule, reduction and optimizer. --host-overhead measures instead how
long it takes to issue one micro-batch, against the time that a GPU is estimated to compute on it.
"""

import argparse
import dataclasses
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from megatron_ext.cli.plan import table_of
from megatron_ext.config.load import load_run_config, split_sources
from megatron_ext.config.rules import check
from megatron_ext.config.sections import RunConfig
from megatron_ext.errors import ConfigError
from megatron_ext.launch.environment import ProcessEnvironment
from megatron_ext.model.hardware import GPUS, find_gpu
from megatron_ext.model.memory import GIB, estimate
from megatron_ext.model.step_time import microbatch_seconds
from megatron_ext.utils.atomic import write_text
from megatron_ext.utils.console import get_logger

MODELS = Path("configs/models")
OUTPUT = Path("benchmarks/results/training.json")
PEERS = ("megatron-core", "transformers", "transformers-compiled", "liger")
WIDTH = 120  # where there is no terminal
GOAL = 0.25  # of a GPU's time on a micro-batch, that the host may take to issue it

logger = get_logger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``benchmark``."""
    parser.add_argument(
        "sources",
        nargs="*",
        metavar="CONFIG.yaml | section.key=value",
        help="parts and overrides, as for launch",
    )
    parser.add_argument("--model", required=True, metavar="M", help=f"a file, or a name in {MODELS}")
    parser.add_argument(
        "--num-layers", type=int, metavar="N", help="a slice of the model (default: all its layers)"
    )
    parser.add_argument("--micro-batch-size", type=int, default=1, metavar="N", help="sequences (default: 1)")
    parser.add_argument("--micro-batches", type=int, default=1, metavar="N", help="in a step (default: 1)")
    parser.add_argument("--seq-length", type=int, default=4096, metavar="N", help="tokens (default: 4096)")
    parser.add_argument("--steps", type=int, default=10, metavar="N", help="timed (default: 10)")
    parser.add_argument("--warmup", type=int, default=3, metavar="N", help="before them (default: 3)")
    parser.add_argument(
        "--peers", nargs="*", default=[], choices=PEERS, help="others to time in the same run"
    )
    parser.add_argument(
        "--cuda-graphs", action="store_true", help="time ours replayed as a CUDA graph besides (needs a GPU)"
    )
    parser.add_argument("--host-overhead", action="store_true", help="time to issue a micro-batch instead")
    parser.add_argument(
        "--gpu", default="h100", help=f"for --host-overhead, one of {', '.join(GPUS)} (default: h100)"
    )
    parser.add_argument(
        "--output", type=Path, default=OUTPUT, metavar="FILE", help=f"JSON (default: {OUTPUT})"
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure in this process, and report from the first."""
    gpu = find_gpu(arguments.gpu)
    environment = ProcessEnvironment.detect()
    config = _config(arguments, environment)
    # Here, because they import torch and megatron-core: --help and mistakes do not wait for them.
    from megatron_ext.backend.device import select_backend  # noqa: PLC0415
    from megatron_ext.train.benchmark import host_overhead  # noqa: PLC0415
    from megatron_ext.train.setup import start_processes  # noqa: PLC0415

    backend = select_backend(config.device, environment.local_rank, environment.local_world_size)
    start_processes(config, environment, backend)
    result: dict[str, Any] = {"config": config.model_dump(mode="json"), "device": backend.device_name()}
    if arguments.host_overhead:
        overhead = host_overhead(config, backend)
        estimated = microbatch_seconds(_on_gpu(config), gpu)
        result["host_overhead"] = dataclasses.asdict(overhead) | {"gpu": gpu.name, "gpu_seconds": estimated}
        lines = _overhead_table(result["host_overhead"])
    else:
        result["contenders"] = _contenders(arguments, config, backend)
        lines = _table(result["contenders"], config)
    if environment.rank == 0:
        Console(soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH).print(lines)
        result["torch"] = version("torch")
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        write_text(arguments.output, json.dumps(result, indent=2) + "\n")
        logger.info(f"written to {arguments.output}")
    return 0


def _contenders(arguments: argparse.Namespace, config: RunConfig, backend: Any) -> list[dict[str, Any]]:
    """Ours, also in graphs where the run has them, then the peers that are installed, one after the other."""
    from megatron_ext.train import benchmark, peers  # noqa: PLC0415

    batches = benchmark.synthetic_batches(config)
    plain = benchmark.with_graphs(config, cuda_graphs=False)
    builders: dict[str, Any] = {benchmark.OURS: benchmark.training_step}
    if config.kernels.cuda_graphs:
        builders[benchmark.OURS_IN_GRAPHS] = benchmark.training_step
    for name in (name for name in peers.PEERS if name in arguments.peers):
        package = peers.missing_package(name)
        if package is not None:
            logger.warning(f"{name} is left out: {package} is not installed")
        elif config.launch.world_size > 1:
            logger.warning(f"{name} is left out: peers run in one process")
        else:
            builders[name] = peers.PEERS[name]
    measured = []
    for name, build in builders.items():
        run = config if name == benchmark.OURS_IN_GRAPHS else plain
        step = build(run, backend, batches)
        times = {"warmup": arguments.warmup, "steps": arguments.steps}
        measured.append(dataclasses.asdict(benchmark.measure(name, run, backend, step, **times)))
        del step
    return measured


def _config(arguments: argparse.Namespace, environment: ProcessEnvironment) -> RunConfig:
    """The run that is timed: the model, parts and overrides, and what stands for data.

    Raises:
        ConfigError: a file or value is wrong, or the processes do not divide into copies of the model.
    """
    model = Path(arguments.model)
    if not model.exists():
        model = MODELS / f"{arguments.model}.yaml"
    if arguments.steps < 1 or arguments.warmup < 0 or arguments.micro_batches < 1:
        raise ConfigError("--steps and --micro-batches are 1 or more, --warmup 0 or more")
    files, overrides = split_sources(arguments.sources)
    local = environment.local_world_size
    given = [
        "name=benchmark",
        "tokenizer.type=ByteTokenizer",
        "data.train=[{path: synthetic}]",
        "training.train_iters=1000000",
        "optimizer.lr=1.0e-4",
        "parallel.use_distributed_optimizer=true",  # on one process, too: the update in one kernel comes with it
        f"training.micro_batch_size={arguments.micro_batch_size}",
        f"training.seq_length={arguments.seq_length}",
        # Every layout divides this; what the copies leave of it is set below.
        f"training.global_batch_size={arguments.micro_batch_size * arguments.micro_batches * environment.world_size}",
        f"launch.nnodes={environment.world_size // local}",
        f"launch.nproc_per_node={local}",
    ]
    if arguments.num_layers is not None:
        given.append(f"model.num_layers={arguments.num_layers}")
    if arguments.cuda_graphs:
        given.append("kernels.cuda_graphs=true")
    run = load_run_config([model, *files], [*given, *overrides])
    samples = arguments.micro_batch_size * arguments.micro_batches * run.data_parallel_size
    run = run.model_copy(update={"training": run.training.model_copy(update={"global_batch_size": samples})})
    if problems := check(run):
        raise ConfigError(problems)
    return run


def _on_gpu(config: RunConfig) -> RunConfig:
    """The same run as a GPU trains it, wherever its host time was measured."""
    training = config.training.model_copy(update={"precision": "bf16"})
    return config.model_copy(update={"device": "auto", "training": training})


def _table(contenders: list[dict[str, Any]], config: RunConfig) -> Any:
    training = config.training
    title = (
        f"{config.model.num_layers} layers, {training.micro_batch_size} × {training.seq_length} tokens, "
        f"{config.num_microbatches} micro-batches, {config.launch.world_size} processes"
    )
    table = table_of(title, "", *(one["name"] for one in contenders))
    rows: dict[str, list[str]] = {
        "tokens/s of each device": [f"{one['tokens_per_second_per_gpu']:,.0f}" for one in contenders],
        "step, median / best, s": [f"{one['seconds']:.4f} / {one['best_seconds']:.4f}" for one in contenders],
        "TFLOP/s, full / causal": [_pair(one["tflops"], "{:.3g}") for one in contenders],
        "MFU, full / causal": [_pair(one["mfu"], "{:.1%}") for one in contenders],
        "peak memory, GiB": [f"{one['peak_memory_bytes'] / GIB:.2f}" for one in contenders],
    }
    for part in dict.fromkeys(part for one in contenders for part in one["parts"]):
        rows[f"  {part}"] = [_share(one["parts"], part) for one in contenders]
    for name, values in rows.items():
        table.add_row(name, *values)
    table.add_row(
        "estimated memory, GiB", f"{estimate(config).total / GIB:.2f}", *[""] * (len(contenders) - 1)
    )
    return table


def _overhead_table(overhead: dict[str, Any]) -> Any:
    table = table_of("issuing one micro-batch, forward and backward", "", "")
    share = overhead["seconds"] / overhead["gpu_seconds"]
    table.add_row("host, ms a layer", f"{overhead['seconds_per_layer'] * 1e3:.3f}")
    table.add_row(f"host, ms for {overhead['num_layers']} layers", f"{overhead['seconds'] * 1e3:.2f}")
    table.add_row(f"{overhead['gpu']}, ms, estimated", f"{overhead['gpu_seconds'] * 1e3:.1f}")
    table.add_row(
        "host's share", f"{share:.1%} ({'under' if share < GOAL else 'over'} the goal of {GOAL:.0%})"
    )
    return table


def _pair(values: dict[str, float] | None, form: str) -> str:
    return (
        "unknown" if values is None else " / ".join(form.format(values[name]) for name in ("full", "causal"))
    )


def _share(parts: dict[str, float], part: str) -> str:
    return f"{parts[part]:.4f} s, {parts[part] / sum(parts.values()):.0%}" if part in parts else ""
