"""Which layouts of a run fit a GPU, and which of them is the fastest by ``step_time.py``. No torch here."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from megatron_ext.config.rules import check
from megatron_ext.config.sections import RunConfig
from megatron_ext.model.hardware import GPUS_PER_NODE, Gpu
from megatron_ext.model.memory import GIB, USABLE_PART, MemoryEstimate, estimate
from megatron_ext.model.step_time import Speed, StepTime, speed, step_time

MICRO_BATCH_SIZES = (1, 2, 4, 8)
CONTEXT_PARALLEL_SIZES = (1, 2, 4, 8)
NOTHING_RECOMPUTED: dict[str, Any] = {
    "recompute_granularity": "none",
    "recompute_method": None,
    "recompute_num_layers": None,
    "recompute_modules": None,
}


@dataclass(frozen=True)
class Plan:
    """A layout of a run with what it takes and gives."""

    run: RunConfig
    memory: MemoryEstimate
    time: StepTime
    speed: Speed

    @classmethod
    def of(cls, run: RunConfig, gpu: Gpu) -> "Plan":
        """Estimate a run as it is."""
        time = step_time(run, gpu)
        return cls(run, estimate(run), time, speed(run, gpu, time.total))

    def fits(self, gpu: Gpu) -> bool:
        """Whether the fullest device holds it."""
        return _fits(self.memory, gpu)

    @property
    def layout(self) -> str:
        """The layout in short, such as ``TP2 PP4 VPP2 DP32``."""
        parallel = self.run.parallel
        sizes = {
            "TP": parallel.tensor_model_parallel_size,
            "PP": parallel.pipeline_model_parallel_size,
            "VPP": parallel.chunks_per_stage,
            "CP": parallel.context_parallel_size,
            "DP": self.run.data_parallel_size,
        }
        return " ".join(f"{name}{size}" for name, size in sizes.items() if size > 1) or "one GPU"

    @property
    def recompute(self) -> str:
        """What is recomputed, in short."""
        parallel = self.run.parallel
        if parallel.recompute_granularity == "selective":
            return ", ".join(parallel.recompute_modules or ("core_attn",))
        if parallel.recompute_granularity == "full" and parallel.recompute_method == "block":
            return f"{parallel.recompute_num_layers} layers of each part"
        return "all layers" if parallel.recompute_granularity == "full" else "nothing"


def rank(run: RunConfig, gpu: Gpu, count: int = 10) -> list[Plan]:
    """The fastest layouts of a run on as many GPUs, the best first; model, batch and sequence stay as they are."""
    plans = [Plan.of(candidate, gpu) for candidate in fitting(run, gpu)]
    return sorted(plans, key=lambda plan: plan.time.total)[:count]


def fitting(run: RunConfig, gpu: Gpu) -> Iterator[RunConfig]:
    """Every layout that passes the rules and fits, each with as little recomputation as that takes.

    Yields:
        The run with this layout and micro-batch size.
    """
    for parallel, micro_batch_size in _sizes(run):
        for recompute in _recomputations(run, parallel):
            candidate = _with(run, {**parallel, **recompute}, micro_batch_size)
            if check(candidate):
                break  # recomputation is not what the rules refuse
            if _fits(estimate(candidate), gpu):
                yield candidate
                break


def _sizes(run: RunConfig) -> Iterator[tuple[dict[str, Any], int]]:
    """Tensor parallelism within a node; pipelines and their chunks of equally many layers; contexts; micro-batches."""
    world, layers = run.launch.world_size, run.model.num_layers
    for tensor in (size for size in (1, 2, 4, 8) if size <= GPUS_PER_NODE):
        for pipeline in _divisors(layers):
            for virtual in _divisors(layers // pipeline) if pipeline > 1 else [1]:
                for context in CONTEXT_PARALLEL_SIZES:
                    copies, left = divmod(world, tensor * pipeline * context)
                    if left or copies == 0:
                        continue
                    for micro_batch_size in MICRO_BATCH_SIZES:
                        if run.training.global_batch_size % (micro_batch_size * copies) == 0:
                            sizes = _parallel(run, tensor, pipeline, virtual, context)
                            yield sizes, micro_batch_size


def _parallel(run: RunConfig, tensor: int, pipeline: int, virtual: int, context: int) -> dict[str, Any]:
    """The keys of a layout; states are shared where ranks can, and communication overlaps where a graph allows it."""
    shared = run.launch.world_size > tensor * pipeline
    return {
        "tensor_model_parallel_size": tensor,
        "pipeline_model_parallel_size": pipeline,
        "virtual_pipeline_model_parallel_size": virtual if virtual > 1 else None,
        "num_layers_in_first_pipeline_stage": None,
        "num_layers_in_last_pipeline_stage": None,
        "context_parallel_size": context,
        "sequence_parallel": tensor > 1,
        "use_distributed_optimizer": shared or run.parallel.use_distributed_optimizer,
        "overlap_grad_reduce": shared,
        "overlap_param_gather": shared and not run.kernels.cuda_graphs,
    }


def _recomputations(run: RunConfig, parallel: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """From nothing to everything, each more than the one before."""
    yield NOTHING_RECOMPUTED
    yield {**NOTHING_RECOMPUTED, "recompute_granularity": "selective", "recompute_modules": ("mlp",)}
    chunks = parallel["pipeline_model_parallel_size"] * (
        parallel["virtual_pipeline_model_parallel_size"] or 1
    )
    layers = run.model.num_layers // chunks
    full = {**NOTHING_RECOMPUTED, "recompute_granularity": "full"}
    for some in sorted({layers // 2, 3 * layers // 4} - {0, layers}):
        yield {**full, "recompute_method": "block", "recompute_num_layers": some}
    yield {**full, "recompute_method": "uniform", "recompute_num_layers": 1}


def _with(run: RunConfig, parallel: dict[str, Any], micro_batch_size: int) -> RunConfig:
    return run.model_copy(
        update={
            "parallel": run.parallel.model_copy(update=parallel),
            "training": run.training.model_copy(update={"micro_batch_size": micro_batch_size}),
        }
    )


def _fits(memory: MemoryEstimate, gpu: Gpu) -> bool:
    return memory.total <= gpu.memory_gib * GIB * USABLE_PART


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]
