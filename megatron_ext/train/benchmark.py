"""Times real training steps: the same model, schedule and optimizer as a run's, on synthetic tokens."""

import dataclasses
import gc
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist

from megatron_ext.backend.device import Backend
from megatron_ext.config.sections import RunConfig
from megatron_ext.data.loader import MicroBatch
from megatron_ext.model.flops import flops_per_token
from megatron_ext.model.transformer import build_model
from megatron_ext.observe.profile import profile_parts
from megatron_ext.observe.throughput import peak_tflops
from megatron_ext.train.graphs import WARMUP_STEPS
from megatron_ext.train.setup import ModelBuilder, build_trainable
from megatron_ext.train.step import train_step
from megatron_ext.utils.console import get_logger

logger = get_logger(__name__)

OURS, OURS_IN_GRAPHS = "megatron_ext", "megatron_ext, CUDA graphs"
Step = Callable[[], object]
HEADS, HEAD_SIZE, SMALL_SEQ, SMALL_VOCAB = 4, 16, 16, 128
"""Of a process whose computation takes no time to speak of: what is left is the host's work."""
MANY = 9


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One contender's steps.

    Attributes:
        name: ours, or a peer.
        seconds: median of a step.
        best_seconds: shortest step.
        tokens_per_second_per_gpu: by the median.
        tflops: of the model, by convention of attention: ``full`` and ``causal``.
        mfu: likewise, a part of the peak; None where the peak is not known.
        peak_memory_bytes: most that this process held.
        parts: seconds of one step by kind of work, under the profiler.
    """

    name: str
    seconds: float
    best_seconds: float
    tokens_per_second_per_gpu: float
    tflops: dict[str, float]
    mfu: dict[str, float] | None
    peak_memory_bytes: int
    parts: dict[str, float]


def synthetic_batches(run: RunConfig, seed: int = 0) -> list[MicroBatch]:
    """This process's micro-batches of one step: uniformly random tokens, every label counted."""
    training = run.training
    random = np.random.default_rng(seed)
    shape = (training.micro_batch_size, training.seq_length + 1)
    dtype = np.uint16 if run.model.vocab_size <= np.iinfo(np.uint16).max else np.int32
    owner = np.zeros(training.micro_batch_size, dtype=np.int32)
    return [
        MicroBatch(random.integers(0, run.model.vocab_size, shape).astype(dtype), None, None, owner)
        for _ in range(run.num_microbatches)
    ]


def training_step(
    run: RunConfig, backend: Backend, micro_batches: list[MicroBatch], build: ModelBuilder = build_model
) -> Step:
    """A step of training as ``train`` does it, of our model or another that ``build`` makes."""
    model, optimizer, graphs = build_trainable(run, backend, build)
    return lambda: train_step(run, model, optimizer, micro_batches, 1, graphs=graphs)


def with_graphs(run: RunConfig, *, cuda_graphs: bool) -> RunConfig:
    """The same run, with or without graphs of its steps."""
    return run.model_copy(update={"kernels": run.kernels.model_copy(update={"cuda_graphs": cuda_graphs})})


def measure(
    name: str, run: RunConfig, backend: Backend, step: Step, *, warmup: int, steps: int
) -> Measurement:
    """Warm up, time steps one by one, then profile one more."""
    gc.collect()  # of the contender before
    backend.reset_peak_memory()
    for _ in range(
        warmup + (WARMUP_STEPS + 1 if run.kernels.cuda_graphs else 0)
    ):  # and the one that is recorded
        step()
    seconds = [_timed(step, backend) for _ in range(steps)]
    peak_memory = backend.peak_memory_bytes()
    median = statistics.median(seconds)
    rate = run.training.tokens_per_iteration / median / run.launch.world_size
    # Said at once: if what comes after hangs or fails, this is not lost.
    logger.info(f"{name}: {median:.4f} s a step, {rate:,.0f} tokens/s of each device")
    conventions = {"full": False, "causal": True}
    tflops = {
        convention: rate * flops_per_token(run.model, run.training.seq_length, causal=causal) / 1e12
        for convention, causal in conventions.items()
    }
    peak = run.logging.peak_tflops or peak_tflops(backend.device_name(), run.training.precision)
    return Measurement(
        name=name,
        seconds=median,
        best_seconds=min(seconds),
        tokens_per_second_per_gpu=rate,
        tflops=tflops,
        mfu=None if peak is None else {convention: value / peak for convention, value in tflops.items()},
        peak_memory_bytes=peak_memory,
        parts=profile_parts(step, backend.synchronize),
    )


@dataclasses.dataclass(frozen=True)
class HostOverhead:
    """Time to issue one micro-batch, forward and backward, whatever its size, in the process that takes longest.

    Attributes:
        seconds: of its pipeline stage.
        seconds_per_layer: what each layer adds.
        num_layers: of its pipeline stage.
    """

    seconds: float
    seconds_per_layer: float
    num_layers: int


def host_overhead(run: RunConfig, backend: Backend, repeats: int = 3) -> HostOverhead:
    """Measure with shapes so small that computing them takes no time to speak of.

    A step of many micro-batches less one of few leaves forward and backward passes alone; a deep model less one of a
    single layer in each part of a stage leaves layers alone. Each is the best of ``repeats``.
    """
    parallel = run.parallel
    stages, chunks = parallel.pipeline_model_parallel_size, parallel.chunks_per_stage
    even = {"num_layers_in_first_pipeline_stage": None, "num_layers_in_last_pipeline_stage": None}
    torch.set_num_threads(1)  # there is work for one; a CPU's others would only be in its way
    deep = _issue_seconds(run, backend, repeats)
    shallow_run = run.model_copy(
        update={
            "model": run.model.model_copy(update={"num_layers": stages * chunks}),
            "parallel": parallel.model_copy(update=even),
        }
    )
    shallow = _issue_seconds(shallow_run, backend, repeats)
    layers = max(parallel.stage_layers(run.model.num_layers))
    slowest = torch.tensor(
        [deep, (deep - shallow) / max(1, layers - chunks)], dtype=torch.float64, device=backend.device
    )
    dist.all_reduce(slowest, dist.ReduceOp.MAX)
    seconds, per_layer = slowest.tolist()
    return HostOverhead(seconds, per_layer, layers)


def _small(run: RunConfig) -> RunConfig:
    """The same layers and layout, in a size that every layout divides; few KV groups stay fewer than heads."""
    parallel = run.parallel
    heads = HEADS * parallel.tensor_model_parallel_size
    grouped = run.model.query_groups < run.model.num_attention_heads
    shape = {
        "hidden_size": heads * HEAD_SIZE,
        "ffn_hidden_size": 2 * heads * HEAD_SIZE,
        "num_attention_heads": heads,
        "num_query_groups": heads // HEADS if grouped else heads,
        "kv_channels": None,
        "vocab_size": SMALL_VOCAB,
    }
    batch = {
        "seq_length": SMALL_SEQ * parallel.context_parallel_size,
        "micro_batch_size": 1,
        "global_batch_size": MANY * parallel.pipeline_model_parallel_size * run.data_parallel_size,
    }
    return run.model_copy(
        update={
            "model": run.model.model_copy(update=shape),
            "training": run.training.model_copy(update=batch),
        }
    )


def _issue_seconds(run: RunConfig, backend: Backend, repeats: int) -> float:
    small = _small(run)
    batches = synthetic_batches(small)
    few, many = len(batches) // MANY, len(batches)  # interleaved stages take a multiple of their number
    trained, optimizer, graphs = build_trainable(small, backend)

    def issued(count: int) -> float:
        backend.synchronize()
        start = backend.host_clock()
        train_step(small, trained, optimizer, batches[:count], 1, graphs=graphs)
        backend.synchronize()
        return backend.host_clock() - start

    def seconds(count: int) -> float:
        return min(issued(count) for _ in range(repeats))

    for _ in range(max(repeats, WARMUP_STEPS)):
        issued(many)
    return (seconds(many) - seconds(few)) / (many - few)


def _timed(step: Step, backend: Backend) -> float:
    backend.synchronize()
    start = time.perf_counter()
    step()
    backend.synchronize()
    return time.perf_counter() - start
