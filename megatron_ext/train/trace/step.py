"""One step of a run as one of its GPUs does it, on tensors without data: what it allocates, launches and waits for.

The model, schedule, reduction and optimizer are those that train; only data, kernels and the other processes are
missing. So any layout of any size can be looked at on one CPU, in seconds.
"""

import os
from dataclasses import dataclass, replace

import numpy as np
from megatron.core import parallel_state

from megatron_ext.backend.data_free import DataFreeBackend
from megatron_ext.config.sections import RunConfig
from megatron_ext.data.loader import MicroBatch
from megatron_ext.errors import ConfigError
from megatron_ext.launch.environment import ProcessEnvironment
from megatron_ext.model.hardware import BANDWIDTH_EFFICIENCY, Gpu
from megatron_ext.observe.profile import COMMUNICATION
from megatron_ext.train.benchmark import synthetic_batches
from megatron_ext.train.setup import build_trainable, start_processes
from megatron_ext.train.step import train_step
from megatron_ext.train.trace.counter import StepCounter
from megatron_ext.train.trace.stand_ins import counting
from megatron_ext.train.trace.work import Work

HOPPER, AMPERE = (9, 0), (8, 0)
STAGES_FILLED = 2
"""Micro-batches for each pipeline stage that show all there is to see: more repeat the middle of the schedule."""


@dataclass(frozen=True)
class Kind:
    """Launches of one kind in a step.

    Attributes:
        launches: kernels, or collectives.
        flops: of products.
        moved: bytes read and written; of collectives, in and out of this process.
        floor: seconds that the kernels need at a lone kernel's speed; of collectives, 0.
    """

    launches: int
    flops: int
    moved: int
    floor: float


@dataclass(frozen=True)
class Trace:
    """A step of one process, its second: the first one allocates states.

    Attributes:
        rank: of the process.
        stage: its pipeline stage.
        num_microbatches: in the step.
        weights: bytes of the model's weights.
        gradients: bytes of main gradients.
        optimizer: bytes of everything else that lives between steps.
        passes: bytes that are allocated on top of these, at most.
        waits: times that the host waited for a value of the device.
        uploads: bytes copied from the host.
        kinds: what was launched.
    """

    rank: int
    stage: int
    num_microbatches: int
    weights: int
    gradients: int
    optimizer: int
    passes: int
    waits: int
    uploads: int
    kinds: dict[str, Kind]

    @property
    def total(self) -> int:
        """Bytes that are allocated at most."""
        return self.weights + self.gradients + self.optimizer + self.passes


def shortened(run: RunConfig) -> RunConfig:
    """The same run with attention that can be traced, and no more micro-batches than fill its pipeline."""
    wanted = STAGES_FILLED * run.parallel.pipeline_model_parallel_size * run.parallel.chunks_per_stage
    training = run.training
    samples = min(run.num_microbatches, wanted) * run.data_parallel_size * training.micro_batch_size
    update = {"global_batch_size": samples, "rampup_batch_size": None}
    backend = (
        "torch" if training.precision == "fp32" else "sdpa_flash"
    )  # what auto comes to where all is installed
    kernels = run.kernels.model_copy(update={"attention_backend": backend, "cuda_graphs": False})
    return run.model_copy(update={"training": training.model_copy(update=update), "kernels": kernels})


def first_ranks(run: RunConfig) -> list[int]:
    """The first process of each pipeline stage: megatron-core counts stages last."""
    stages = run.parallel.pipeline_model_parallel_size
    return [stage * (run.launch.world_size // stages) for stage in range(stages)]


def trace_step(run: RunConfig, rank: int, gpu: Gpu) -> Trace:
    """Take a run's step apart, in a process that does nothing else: it is redirected for good.

    Args:
        run: a checked run; :func:`shortened` here.
        rank: of the process to be.
        gpu: what it stands for.

    Raises:
        ConfigError: Triton is told to interpret kernels, or products are in FP8.
    """
    if run.training.fp8 is not None:
        raise ConfigError(
            f"training.fp8={run.training.fp8}: Transformer Engine's kernels need a GPU; trace the run with "
            "training.fp8=null, whose weights, gradients and states take as much"
        )
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise ConfigError("TRITON_INTERPRET=1 makes Triton compute with data, and a trace has none; unset it")
    run = shortened(run)
    backend = DataFreeBackend(HOPPER if gpu.name.startswith("h") else AMPERE)
    backend.start()
    backend.join(rank, run.launch.world_size)
    local = run.launch.nproc_per_node
    start_processes(run, ProcessEnvironment(rank, run.launch.world_size, rank % local, local), backend)
    counter = StepCounter()
    with counting(counter), counter:
        model, optimizer, _ = build_trainable(run, backend)
        batches = synthetic_batches(run) if not run.data.reset_attention_mask else _documents(run)
        train_step(run, model, optimizer, batches, 1)
        between = counter.live
        counter.restart()
        train_step(run, model, optimizer, batches, 2)
    weights = sum(weight.nbytes for chunk in model for weight in chunk.parameters())
    gradients = sum(buffer.grad_data.nbytes for chunk in model for buffer in chunk.buffers)
    return Trace(
        rank=rank,
        stage=parallel_state.get_pipeline_model_parallel_rank(),
        num_microbatches=run.num_microbatches,
        weights=weights,
        gradients=gradients,
        optimizer=between - weights - gradients,
        passes=counter.peak - between,
        waits=counter.waits,
        uploads=counter.uploads,
        kinds={kind: _summed(kind, works, gpu) for kind, works in counter.done.items()},
    )


def _documents(run: RunConfig) -> list[MicroBatch]:
    """Micro-batches whose rows are one document each."""
    training = run.training
    starts = np.arange(training.micro_batch_size + 1, dtype=np.int32) * training.seq_length
    return [replace(batch, cu_seqlens=starts) for batch in synthetic_batches(run)]


def _summed(kind: str, works: list[Work], gpu: Gpu) -> Kind:
    efficiency = gpu.attention_efficiency if kind == "attention" else gpu.gemm_efficiency
    rate, bandwidth = gpu.peak_tflops * 1e12 * efficiency, gpu.bandwidth * BANDWIDTH_EFFICIENCY
    floor = sum(max(work.flops / rate, work.moved / bandwidth) for work in works)
    return Kind(
        launches=len(works),
        flops=sum(work.flops for work in works),
        moved=sum(work.moved for work in works),
        floor=0.0 if kind == COMMUNICATION else floor,
    )
