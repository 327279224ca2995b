"""Seconds of one optimizer step, by where they go, and the tokens/s that follow. No torch here.

Left out: the input pipeline, checkpoints, stragglers.
"""

from dataclasses import dataclass, fields

from megatron_ext.config.sections import RunConfig
from megatron_ext.config.state_bytes import StateBytes, state_bytes
from megatron_ext.model.activations import layers_per_chunk, recomputed_layers
from megatron_ext.model.communication import (
    context_parallel_seconds,
    data_parallel_seconds,
    pipeline_seconds,
    tensor_parallel_seconds,
)
from megatron_ext.model.flops import flops_per_token
from megatron_ext.model.hardware import Gpu
from megatron_ext.model.memory import optimizer_shards, stage_parameters
from megatron_ext.model.roofline import (
    LayerWork,
    Work,
    accumulation_seconds,
    head_work,
    layer_work,
    memory_seconds,
)

# To issue a layer's forward and backward passes, whatever its size (benchmarks/results/host_overhead.json); a graph
# needs none of it.
HOST_SECONDS_PER_LAYER = 1.0e-3
# Weights whose gradients are reduced together (megatron-core's DistributedDataParallel); the last hide behind nothing.
BUCKET, BUCKET_OF_EACH_RANK = 40_000_000, 1_000_000


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step on a device of the slowest pipeline stage; communication is what nothing hides.

    Attributes:
        gemm: matrix products, forward and backward.
        attention: likewise.
        elementwise: norms, RoPE, SwiGLU, residuals, cross entropy, adding up gradients.
        recompute: forward work that is done again.
        tensor, context, pipeline, data: communication of each kind of parallelism.
        host: waiting for kernels to be issued, where they are too small to outlast that.
        bubble: waiting for other stages to fill and drain.
        optimizer: gradient norm and update.
    """

    gemm: float
    attention: float
    elementwise: float
    recompute: float
    tensor: float
    context: float
    pipeline: float
    data: float
    host: float
    bubble: float
    optimizer: float

    @property
    def total(self) -> float:
        """The whole step."""
        return float(sum(getattr(self, field.name) for field in fields(self)))

    def rows(self) -> list[tuple[str, float]]:
        """(part, seconds), those that take any."""
        return [(field.name, value) for field in fields(self) if (value := getattr(self, field.name)) > 0]


@dataclass(frozen=True)
class Speed:
    """What a step time means: tokens/s of one GPU, and the part of the peak in both conventions."""

    tokens_per_second_per_gpu: float
    mfu: float
    causal_mfu: float


def step_time(run: RunConfig, gpu: Gpu) -> StepTime:
    """Estimate one step."""
    return _slowest_stage(run, gpu).step()


def microbatch_seconds(run: RunConfig, gpu: Gpu) -> float:
    """Forward and backward of one micro-batch on the slowest stage, if the host issues it in time."""
    return _slowest_stage(run, gpu).busy


def speed(run: RunConfig, gpu: Gpu, seconds: float) -> Speed:
    """Tokens/s and MFU of a step that takes ``seconds``."""
    rate = run.training.tokens_per_iteration / seconds / run.launch.world_size
    full, causal = (
        rate * flops_per_token(run.model, run.training.seq_length, causal=causal) / (gpu.peak_tflops * 1e12)
        for causal in (False, True)
    )
    return Speed(rate, full, causal)


class _StageTime:
    """The parts of one micro-batch on one stage, and of the step around them."""

    def __init__(
        self, run: RunConfig, gpu: Gpu, layer: LayerWork, head: LayerWork | None, *, stage: int
    ) -> None:
        self.run, self.gpu = run, gpu
        self.virtual = virtual = run.parallel.chunks_per_stage
        layers, again = virtual * layers_per_chunk(run, stage), virtual * recomputed_layers(run, stage)
        head = head or LayerWork(Work(), Work(), Work(), 0.0)
        self.states: StateBytes = state_bytes(run)
        self.parameters = stage_parameters(run.model, run.parallel, stage)
        straight = run.training.gradient_accumulation_fusion
        added = accumulation_seconds(gpu, self.parameters, self.states.gradient, fused=straight)
        # Straight, the first product of a step overwrites; else it adds to zeros, which are written before.
        once = memory_seconds(gpu, self.parameters * self.states.gradient)
        self.first = Work(elementwise=-once if straight else once)
        self.forward = layer.forward * layers + head.forward
        self.backward = layer.backward * layers + head.backward + Work(elementwise=added)
        self.recompute = layer.forward.total * again + layer.recompute.total * (layers - again)
        # Forward, tensor-parallel communication stands in the way; backward it runs beside the weights' gradients.
        forward = tensor_parallel_seconds(run, gpu)
        self.tensor = layers * (forward + max(0.0, forward - layer.weight_gradients)) + again * forward
        self.context = (2 * layers + again) * context_parallel_seconds(run, gpu)
        self.pipeline = 2 * virtual * pipeline_seconds(run, gpu)
        work = self.forward.total + self.backward.total + self.recompute
        self.busy = work + self.tensor + self.context + self.pipeline
        issued = 0.0 if run.kernels.cuda_graphs else layers * HOST_SECONDS_PER_LAYER
        self.host = max(0.0, issued - self.busy)
        self.microbatch = self.busy + self.host

    def step(self) -> StepTime:
        """All micro-batches, filling and draining the pipeline, data parallelism and the update."""
        count, stages = self.run.num_microbatches, self.run.parallel.pipeline_model_parallel_size
        work = (self.forward + self.backward) * count + self.first
        return StepTime(
            gemm=work.gemm,
            attention=work.attention,
            elementwise=work.elementwise,
            recompute=self.recompute * count,
            tensor=self.tensor * count,
            context=self.context * count,
            pipeline=self.pipeline * count,
            data=self._data_parallel(),
            host=self.host * count,
            # (p - 1) / v of a micro-batch: Narayanan et al., arXiv 2104.04473, section 2.2
            bubble=(stages - 1) / self.virtual * self.microbatch,
            optimizer=self._optimizer(),
        )

    def _data_parallel(self) -> float:
        """Gradients travel behind the last backward pass, weights behind the next forward pass, where that is on."""
        parallel = self.run.parallel
        reduce = data_parallel_seconds(self.run, self.gpu, self.parameters, self.states.gradient)
        gather = data_parallel_seconds(self.run, self.gpu, self.parameters, self.states.weight)
        if not parallel.use_distributed_optimizer:
            reduce, gather = 2 * reduce, 0.0  # one all-reduce
        ranks = self.run.data_parallel_size * parallel.context_parallel_size
        bucket = min(1.0, max(BUCKET, BUCKET_OF_EACH_RANK * ranks) / self.parameters)
        if parallel.overlap_grad_reduce:
            reduce = max(bucket * reduce, reduce - self.backward.total - self.recompute)
        if parallel.overlap_param_gather:
            gather = max(bucket * gather, gather - self.forward.total)
        return reduce + gather

    def _optimizer(self) -> float:
        """Reads the gradient twice (its norm, the update), reads and writes its states, writes the weight."""
        moved = 2 * self.states.gradient + 2 * self.states.optimizer + self.states.weight
        return memory_seconds(self.gpu, self.parameters * moved / optimizer_shards(self.run))


def _slowest_stage(run: RunConfig, gpu: Gpu) -> _StageTime:
    last = run.parallel.pipeline_model_parallel_size - 1
    layer, head = layer_work(run, gpu), head_work(run, gpu)
    stages = [
        _StageTime(run, gpu, layer, head if stage == last else None, stage=stage) for stage in {0, last}
    ]
    return max(stages, key=lambda one: one.microbatch)
