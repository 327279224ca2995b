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
from pathlib import Path
from typing import Any

from rich.console import Console

from megatron_ext.cli.benchmark_tables import contenders_table, overhead_table
from megatron_ext.config.load import load_run_config, split_sources
from megatron_ext.config.rules import check
from megatron_ext.config.sections import RunConfig
from megatron_ext.errors import ConfigError
from megatron_ext.launch.environment import ProcessEnvironment
from megatron_ext.model.hardware import GPUS, find_gpu
from megatron_ext.model.step_time import microbatch_seconds
from megatron_ext.utils.atomic import write_text
from megatron_ext.utils.console import get_logger
from megatron_ext.utils.provenance import provenance

MODELS = Path("configs/models")
OUTPUT, OVERHEAD_OUTPUT = (Path(f"benchmarks/results/{name}.json") for name in ("training", "host_overhead"))
PEERS = ("megatron-core", "transformers", "transformers-compiled", "liger")
WIDTH = 120  # where there is no terminal
PACKAGES = (
    "torch",
    "triton",
    "megatron-core",
    "transformers",
    "liger-kernel",
    "flash-attn",
    "transformer-engine",
)

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
        "--output",
        type=Path,
        metavar="FILE",
        help=f"JSON (default: {OUTPUT}, of --host-overhead {OVERHEAD_OUTPUT})",
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
    config = config.model_copy(update={"device": backend.device.type})  # no longer "auto"
    result: dict[str, Any] = {
        **provenance("tools/benchmark_training.py", PACKAGES),
        "device": backend.device_name(),
        "config": config.model_dump(mode="json"),
    }
    if arguments.host_overhead:
        overhead = host_overhead(config, backend)
        estimated = microbatch_seconds(_on_gpu(config), gpu)
        result["host_overhead"] = dataclasses.asdict(overhead) | {"gpu": gpu.name, "gpu_seconds": estimated}
        lines = overhead_table(result["host_overhead"])
    else:
        result["contenders"], result["left_out"] = _contenders(arguments, config, backend)
        lines = contenders_table(result["contenders"], config)
    if environment.rank == 0:
        Console(soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH).print(lines)
        output: Path = arguments.output or (OVERHEAD_OUTPUT if arguments.host_overhead else OUTPUT)
        output.parent.mkdir(parents=True, exist_ok=True)
        write_text(output, json.dumps(result, indent=2) + "\n")
        logger.info(f"written to {output}")
    return 0


def _contenders(
    arguments: argparse.Namespace, config: RunConfig, backend: Any
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Ours, also in graphs where the run has them, then the peers one after the other; why others are left out."""
    from megatron_ext.train import benchmark, peers  # noqa: PLC0415

    batches = benchmark.synthetic_batches(config)
    plain = benchmark.with_graphs(config, cuda_graphs=False)
    times = {"warmup": arguments.warmup, "steps": arguments.steps}

    def measured(name: str, run: RunConfig, build: Any) -> dict[str, Any]:
        return dataclasses.asdict(
            benchmark.measure(name, run, backend, build(run, backend, batches), **times)
        )

    found = [measured(benchmark.OURS, plain, benchmark.training_step)]
    if config.kernels.cuda_graphs:
        found.append(measured(benchmark.OURS_IN_GRAPHS, config, benchmark.training_step))
    left_out = {}
    for name in (name for name in peers.PEERS if name in arguments.peers):
        reason = peers.obstacle(name, config)
        if reason is None:
            try:
                found.append(measured(name, plain, peers.PEERS[name]))
            except peers.FAILURES as error:
                reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        if reason is not None:
            logger.warning(f"{name} is left out: {reason}")
            left_out[name] = reason
    return found, left_out


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
