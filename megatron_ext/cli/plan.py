"""What ``launch --dry-run`` prints: layout, steps, tokens and memory of a run, computed and not started."""

from rich.console import Console
from rich.table import Table

from megatron_ext.config.sections import RunConfig
from megatron_ext.model.flops import flops_per_token, num_parameters
from megatron_ext.model.memory import GIB, estimate, estimate_stage, stage_parameters
from megatron_ext.optim.schedule import corners, learning_rate

# What CUDA leaves of a card's memory for a process, and what the estimate says that it does not count.
CARDS_GIB = {"24 GB": 23.6, "40 GB": 39.4, "48 GB": 47.4, "80 GB": 79.2, "141 GB": 139.8, "192 GB": 178.0}
NOT_COUNTED_GIB = 4.0

SCHEDULE_ROWS = 12
SCHEDULE_BAR = 24


def print_plan(run: RunConfig) -> None:
    """Print the plan of a checked run on standard output."""
    console = Console(soft_wrap=True)
    for table in (_summary(run), _stages(run), _groups(run), _memory(run), _schedule(run)):
        console.print(table)


def _summary(run: RunConfig) -> Table:
    launch, parallel, training = run.launch, run.parallel, run.training
    data, context = run.data_parallel_size, parallel.context_parallel_size
    table = _table(f"run {run.name}", "", "")
    flops = flops_per_token(run.model, training.seq_length, causal=False)
    total_tokens = training.train_samples * training.seq_length
    extras = [name for name in ("sequence_parallel", "use_distributed_optimizer") if getattr(parallel, name)]
    rows = {
        "processes": f"{launch.world_size} (nodes × each: {launch.nnodes} × {launch.nproc_per_node})",
        "launcher": launch.launcher,
        "layout": f"tensor {parallel.tensor_model_parallel_size} × pipeline {parallel.pipeline_model_parallel_size} × "
        + (f"context {context} × " if context > 1 else "")
        + f"data {data}"
        + "".join(f", {name}" for name in extras),
        "data-parallel size": str(data),
        "model": f"{num_parameters(run.model):,} parameters, {flops:.3e} FLOP a token (full attention)",
        "sequences a step": f"{training.global_batch_size:,} (micro-batches × their size × data: "
        f"{run.num_microbatches} × {training.micro_batch_size} × {data})" + _ramp(run),
        "tokens a step": f"{training.tokens_per_iteration:,}",
        "steps": f"{training.train_iters:,}",
        "total tokens": f"{total_tokens:,} ({total_tokens / 1e9:,.1f} B), {flops * total_tokens:.2e} FLOP",
        "precision": training.precision,
        "checkpoints": run.checkpoint_dir,
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _ramp(run: RunConfig) -> str:
    if run.training.rampup_batch_size is None:
        return ""
    start, increment, samples = run.training.rampup_batch_size
    return f", from {start:,} by {increment:,} over the first {samples:,} samples"


def _stages(run: RunConfig) -> Table:
    """What each pipeline stage holds; ranks count tensor, context, data, then pipeline, as in megatron-core."""
    stages = run.parallel.pipeline_model_parallel_size
    layers = run.parallel.chunk_layers(run.model.num_layers)
    ranks = run.launch.world_size // stages
    table = _table(
        "pipeline stages", "stage", "ranks", "layers", "also", "parameters a rank", "memory a rank"
    )
    for stage in range(stages):
        also = ["embedding"] if stage == 0 else []
        also += ["final norm, output layer"] if stage == stages - 1 else []
        table.add_row(
            str(stage),
            _span(stage * ranks, (stage + 1) * ranks - 1),
            "; ".join(_span(chunk.start, chunk.stop - 1) for chunk in layers[stage]),
            ", ".join(also),
            f"{stage_parameters(run.model, run.parallel, stage):,}",
            f"{estimate_stage(run, stage).total / GIB:,.2f} GiB",
        )
    return table


def _groups(run: RunConfig) -> Table:
    tensor, stages = run.parallel.tensor_model_parallel_size, run.parallel.pipeline_model_parallel_size
    context, data, world = run.parallel.context_parallel_size, run.data_parallel_size, run.launch.world_size
    table = _table("groups of ranks", "group", "how many", "size", "shares", "the first one")
    for name, size, stride, shares in (
        ("tensor", tensor, 1, "every layer"),
        ("context", context, tensor, "every sequence"),
        ("data", data, tensor * context, "every batch"),
        ("pipeline", stages, tensor * context * data, "the layers"),
    ):
        first = ", ".join(str(rank * stride) for rank in range(min(size, 8))) + (", …" if size > 8 else "")
        table.add_row(name, str(world // size), str(size), shares, first)
    return table


def _memory(run: RunConfig) -> Table:
    fullest = estimate(run)
    table = _table(f"memory of a rank of stage {fullest.stage}, the fullest", "", "")
    for name, amount in fullest.rows():
        table.add_row(name, amount)
    if run.device != "cpu":
        needed = fullest.total / GIB + NOT_COUNTED_GIB
        fitting = next((card for card, size in CARDS_GIB.items() if size >= needed), None)
        answer = (
            f"{fitting} and more" if fitting else "none of one GPU: split the model further, or recompute"
        )
        table.add_row(f"cards that hold it, with {NOT_COUNTED_GIB:g} GiB for CUDA and buffers", answer)
    return table


def _schedule(run: RunConfig) -> Table:
    """The learning rate where it turns and at even distances in between, with a bar for the eye."""
    optimizer, training = run.optimizer, run.training
    even = (1 + (training.train_iters - 1) * row // (SCHEDULE_ROWS - 1) for row in range(SCHEDULE_ROWS))
    steps = sorted({*even, *corners(optimizer, training.train_iters)})
    rates = [learning_rate(optimizer, training.train_iters, step) for step in steps]
    table = _table(
        f"learning rate ({optimizer.lr_decay_style})", "step", "samples before it", "batch", "rate", ""
    )
    for step, rate in zip(steps, rates, strict=True):
        consumed = training.batch_sizes.samples_after(step - 1)
        bar = "#" * round(SCHEDULE_BAR * rate / max(rates))
        table.add_row(
            f"{step:,}", f"{consumed:,}", f"{training.batch_sizes.at(consumed):,}", f"{rate:.3e}", bar
        )
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", show_header=any(columns))
    for column in columns:
        table.add_column(column)
    return table


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first} to {last}"
