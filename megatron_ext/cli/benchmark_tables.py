"""What ``benchmark`` prints."""

from typing import Any

from rich.table import Table

from megatron_ext.cli.plan import table_of
from megatron_ext.config.sections import RunConfig
from megatron_ext.model.memory import GIB, estimate

GOAL = 0.25  # of a GPU's time on a micro-batch, that the host may take to issue it
REMEDY = "larger micro-batches, less tensor parallelism, or kernels.cuda_graphs=true"


def contenders_table(contenders: list[dict[str, Any]], config: RunConfig) -> Table:
    """Speed, memory and parts of a step; the parts add up to the profiled step, of which they show their shares."""
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
    rows["profiled step, s"] = [f"{sum(one['parts'].values()):.4f}" for one in contenders]
    *_, remainder = contenders[0]["parts"]  # it is last, and all have one
    parts = dict.fromkeys(part for one in contenders for part in one["parts"] if part != remainder)
    for part in (*parts, remainder):
        rows[f"  {part}"] = [_share(one["parts"], part) for one in contenders]
    for name, values in rows.items():
        table.add_row(name, *values)
    table.add_row(
        "estimated memory, GiB", f"{estimate(config).total / GIB:.2f}", *[""] * (len(contenders) - 1)
    )
    return table


def overhead_table(overhead: dict[str, Any]) -> Table:
    """The host's time on a micro-batch beside the GPU's, and what helps where it is too long."""
    table = table_of("issuing one micro-batch, forward and backward", "", "")
    share = overhead["seconds"] / overhead["gpu_seconds"]
    table.add_row("host, ms a layer", f"{overhead['seconds_per_layer'] * 1e3:.3f}")
    table.add_row(f"host, ms for {overhead['num_layers']} layers", f"{overhead['seconds'] * 1e3:.2f}")
    table.add_row(f"{overhead['gpu']}, ms, estimated", f"{overhead['gpu_seconds'] * 1e3:.1f}")
    verdict = f"under the goal of {GOAL:.0%}" if share < GOAL else f"over the goal of {GOAL:.0%}: {REMEDY}"
    table.add_row("host's share", f"{share:.1%} ({verdict})")
    return table


def _pair(values: dict[str, float] | None, form: str) -> str:
    return (
        "unknown" if values is None else " / ".join(form.format(values[name]) for name in ("full", "causal"))
    )


def _share(parts: dict[str, float], part: str) -> str:
    return f"{parts[part]:.4f} s, {parts[part] / sum(parts.values()):.0%}" if part in parts else ""
