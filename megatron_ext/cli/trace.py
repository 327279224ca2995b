"""Tables of a step that was run on tensors without data: memory of each stage, and what its slowest one launches."""

import time
from typing import TYPE_CHECKING

from rich.table import Table

from megatron_ext.cli.plan import table_of
from megatron_ext.config.sections import RunConfig
from megatron_ext.model.hardware import Gpu
from megatron_ext.model.memory import GIB, MIB, estimate_stage
from megatron_ext.utils.console import get_logger

if TYPE_CHECKING:
    from megatron_ext.train.trace.step import Trace

logger = get_logger(__name__)


def trace_tables(config: RunConfig, gpu: Gpu) -> list[Table]:
    """Trace the first process of each pipeline stage; this process can do nothing else on a device afterwards."""
    # Here, because they import torch and megatron-core: an estimate alone does not wait for them.
    from megatron_ext.train.trace.step import first_ranks, trace_step  # noqa: PLC0415

    config = config.model_copy(update={"device": "cuda"})  # whatever it is trained on
    start = time.perf_counter()
    traces = [trace_step(config, rank, gpu) for rank in first_ranks(config)]
    logger.info(
        f"traced a step of {len(traces)} of {config.launch.world_size} processes in "
        f"{time.perf_counter() - start:.0f} s"
    )
    slowest = max(traces, key=_floor)
    return [_memory(traces, config), _launches(slowest, config, gpu)]


def _memory(traces: "list[Trace]", config: RunConfig) -> Table:
    unit, size = ("GiB", GIB) if max(trace.total for trace in traces) >= GIB else ("MiB", MIB)
    table = table_of(
        f"memory of each pipeline stage, {unit}", "rank", "weights", "gradients", "optimizer",
        "activations and the like", "traced", "estimated", "error",
    )  # fmt: skip
    for trace in traces:
        estimated = estimate_stage(config, trace.stage).allocated
        parts = (trace.weights, trace.gradients, trace.optimizer, trace.passes, trace.total, estimated)
        error = f"{estimated / trace.total - 1:+.1%}"
        table.add_row(str(trace.rank), *(f"{part / size:.2f}" for part in parts), error)
    return table


def _launches(trace: "Trace", config: RunConfig, gpu: Gpu) -> Table:
    title = (
        f"{trace.num_microbatches} micro-batches and an update on rank {trace.rank}, at a lone kernel's speed"
    )
    table = table_of(title, "kind", "launches", "TFLOP", "GB moved", "ms")
    for name, kind in sorted(trace.kinds.items(), key=lambda item: -item[1].floor):
        floor = f"{kind.floor * 1e3:,.1f}" if kind.floor else ""
        table.add_row(
            name.removeprefix("exposed "),
            f"{kind.launches:,}",
            f"{kind.flops / 1e12:,.2f}",
            f"{kind.moved / 1e9:,.2f}",
            floor,
        )
    total = _floor(trace)
    table.add_row("total", "", "", "", f"{total * 1e3:,.1f}")
    training = config.training
    tokens = trace.num_microbatches * training.micro_batch_size * training.seq_length
    rate = tokens / total / config.parallel.replica_size
    table.add_row(f"tokens/s of each {gpu.name} at most", "", "", "", f"{rate:,.0f}")
    table.add_row("waits for the device", f"{trace.waits}", "", "", "")
    table.add_row("copied from the host", "", "", f"{trace.uploads / 1e9:,.6f}", "")
    return table


def _floor(trace: "Trace") -> float:
    return sum(kind.floor for kind in trace.kinds.values())
