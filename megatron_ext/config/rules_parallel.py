"""Which layouts work: how processes share layers, sequences and batches, and what is recomputed."""

from collections.abc import Iterator
from math import gcd, lcm

from megatron_ext.config.nearest import nearest_divisors, nearest_multiples, nearest_of
from megatron_ext.config.sections import ModelConfig, RunConfig
from megatron_ext.config.violation import Rule, Violation


def _world_size(run: RunConfig) -> Iterator[Violation]:
    launch, parallel = run.launch, run.parallel
    if launch.world_size % parallel.replica_size:
        names = ["tensor_model_parallel_size", "pipeline_model_parallel_size"]
        names += ["context_parallel_size"] if parallel.context_parallel_size > 1 else []
        sizes = " × ".join(str(getattr(parallel, name)) for name in names)
        yield Violation(
            ("launch.nproc_per_node", "launch.nnodes", "parallel.tensor_model_parallel_size"),
            f"launch.nnodes × nproc_per_node = {launch.nnodes} × {launch.nproc_per_node} processes is not a "
            f"multiple of {' × '.join(names)} = {sizes}; nearest: "
            f"{nearest_multiples(launch.world_size, parallel.replica_size)} processes",
        )


def _global_batch(run: RunConfig) -> Iterator[Violation]:
    training, copies = run.training, run.data_parallel_size
    if run.launch.world_size % run.parallel.replica_size:
        return  # data_parallel_size means nothing then: reported above
    step = training.micro_batch_size * copies
    if training.global_batch_size % step:
        yield Violation(
            ("training.global_batch_size", "training.micro_batch_size"),
            f"training.global_batch_size={training.global_batch_size} is not a multiple of micro_batch_size "
            f"× data_parallel_size = {training.micro_batch_size} × {copies}; nearest: "
            f"{nearest_multiples(training.global_batch_size, step)}",
        )
        return
    stages = run.parallel.pipeline_model_parallel_size
    if run.parallel.virtual_pipeline_model_parallel_size is not None and run.num_microbatches % stages:
        yield Violation(
            ("training.global_batch_size", "training.micro_batch_size"),
            f"training.global_batch_size={training.global_batch_size} makes {run.num_microbatches} micro-batches, "
            f"which the interleaved pipeline passes on in groups of pipeline_model_parallel_size={stages}; "
            f"nearest: {nearest_multiples(training.global_batch_size, step * stages)}",
        )


def _layers_per_stage(run: RunConfig) -> Iterator[Violation]:
    layers, parallel = run.model.num_layers, run.parallel
    stages = parallel.pipeline_model_parallel_size
    ends = {
        name: amount
        for name in ("num_layers_in_first_pipeline_stage", "num_layers_in_last_pipeline_stage")
        if (amount := getattr(parallel, name)) is not None
    }
    if not ends:
        if layers % stages:
            yield Violation(
                ("parallel.pipeline_model_parallel_size", "model.num_layers"),
                f"parallel.pipeline_model_parallel_size={stages} does not divide model.num_layers={layers}, and "
                f"every stage holds as many layers; nearest: {nearest_divisors(layers, stages)}, or give the first "
                "or the last stage another number with num_layers_in_first_pipeline_stage or "
                "num_layers_in_last_pipeline_stage",
            )
        return
    first = next(iter(ends))
    if stages == 1:
        yield Violation(
            (f"parallel.{first}", "parallel.pipeline_model_parallel_size"),
            f"parallel.{first}={ends[first]}: with pipeline_model_parallel_size=1 the only stage holds all "
            f"{layers} layers; remove it, or set pipeline_model_parallel_size to 2 or more",
        )
    elif not _fill(layers, stages, ends):
        given = " and ".join(f"{name}={amount}" for name, amount in ends.items())
        fixed = {name: amount for name, amount in ends.items() if name != first}
        fitting = [amount for amount in range(1, layers) if _fill(layers, stages, {**fixed, first: amount})]
        nearest = nearest_of(fitting, ends[first])
        yield Violation(
            (f"parallel.{first}", "model.num_layers"),
            f"parallel.{given} of model.num_layers={layers} leaves no equal number of layers, one or more, to the "
            f"other of {stages} stages; "
            + (
                f"nearest {first}: {nearest}"
                if nearest
                else f"no {first} would: change the other, or the stages"
            ),
        )


def _fill(layers: int, stages: int, ends: dict[str, int]) -> bool:
    """Whether the stages that ``ends`` says nothing about can share what it leaves."""
    left, others = layers - sum(ends.values()), stages - len(ends)
    return left == 0 if others == 0 else left > 0 and left % others == 0


def _interleaved(run: RunConfig) -> Iterator[Violation]:
    parallel, chunks = run.parallel, run.parallel.virtual_pipeline_model_parallel_size
    if chunks is None:
        return
    keys = ("parallel.virtual_pipeline_model_parallel_size", "parallel.pipeline_model_parallel_size")
    if parallel.pipeline_model_parallel_size == 1:
        yield Violation(
            keys,
            f"parallel.virtual_pipeline_model_parallel_size={chunks} interleaves the parts of several stages, and "
            "pipeline_model_parallel_size=1; set that to 2 or more, or remove this key",
        )
        return
    if any(_layers_per_stage(run)):
        return  # reported there
    layers = parallel.stage_layers(run.model.num_layers)
    common = gcd(*layers)
    if common % chunks:
        nearest = nearest_of([size for size in range(2, common + 1) if common % size == 0], chunks)
        yield Violation(
            (*keys, "model.num_layers"),
            f"parallel.virtual_pipeline_model_parallel_size={chunks} does not divide the layers of a stage, "
            f"{_listed(layers)}, and every part holds as many; "
            + (f"nearest: {nearest}" if nearest else "no other does: remove the key"),
        )


def _tensor_parallel_shards(run: RunConfig) -> Iterator[Violation]:
    """One line with all that a size does not divide, so that the sizes it names satisfy each part of it."""
    tensor = run.parallel.tensor_model_parallel_size
    obstacles = _indivisible(run.model, tensor)
    if obstacles:
        fitting = [
            size for size in range(1, run.model.num_attention_heads + 1) if not _indivisible(run.model, size)
        ]
        yield Violation(
            ("parallel.tensor_model_parallel_size", *obstacles),
            f"parallel.tensor_model_parallel_size={tensor} {', and '.join(obstacles.values())}; nearest: "
            f"{nearest_of(fitting, tensor)}",
        )


def _indivisible(model: ModelConfig, tensor: int) -> dict[str, str]:
    """What ``tensor`` processes cannot share, by the key that says so."""
    found = {}
    for name in ("num_attention_heads", "ffn_hidden_size"):
        if getattr(model, name) % tensor:
            found[f"model.{name}"] = f"does not divide model.{name}={getattr(model, name)}"
    if model.num_query_groups is not None and not _shares_groups(model, tensor):
        found["model.num_query_groups"] = (
            f"gives no process whole groups of model.num_query_groups={model.query_groups}, nor each group as many "
            "processes, which split its rows of query, key and value evenly"
        )
    return found


def _shares_groups(model: ModelConfig, tensor: int) -> bool:
    """Whether KV heads divide among processes, or processes among KV heads: these compute a part of one and gather."""
    groups = model.query_groups
    rows = (model.num_attention_heads + 2 * groups) * model.head_size
    return groups % tensor == 0 or (tensor % groups == 0 and rows % tensor == 0)


def _sequence_shards(run: RunConfig) -> Iterator[Violation]:
    parallel, length = run.parallel, run.training.seq_length
    tensor, context = parallel.tensor_model_parallel_size, parallel.context_parallel_size
    if parallel.sequence_parallel and tensor == 1:
        yield Violation(
            ("parallel.sequence_parallel",),
            "parallel.sequence_parallel=true splits the sequence over the tensor parallel processes, and "
            "tensor_model_parallel_size=1; set it to 2 or more, or sequence_parallel=false",
        )
        return
    by_tensor = tensor * context if parallel.sequence_parallel else 1
    by_context = 2 * context if context > 1 else 1
    unit = lcm(by_tensor, by_context)
    if length % unit == 0:
        return
    reasons = {
        f"2 × context_parallel_size = 2 × {context}, the parts that context parallelism deals out": (
            length % by_context != 0
        ),
        f"tensor_model_parallel_size={tensor}"
        + (f" × context_parallel_size={context}" if context > 1 else "")
        + ", which sequence_parallel splits it over": length % by_tensor != 0,
    }
    broken = " and of ".join(reason for reason, holds in reasons.items() if holds)
    yield Violation(
        ("training.seq_length", "parallel.context_parallel_size"),
        f"training.seq_length={length} is not a multiple of {broken}; nearest: {nearest_multiples(length, unit)}",
    )


def _overlap(run: RunConfig) -> Iterator[Violation]:
    parallel = run.parallel
    needed = {
        "use_distributed_optimizer": parallel.use_distributed_optimizer,
        "overlap_grad_reduce": parallel.overlap_grad_reduce,
    }
    for name, value in needed.items():
        if parallel.overlap_param_gather and not value:
            yield Violation(
                ("parallel.overlap_param_gather",),
                f"parallel.overlap_param_gather=true needs {name}=true: it overlaps the gathering of "
                "parameters that the distributed optimizer has sharded",
            )


def _recompute(run: RunConfig) -> Iterator[Violation]:
    parallel, granularity = run.parallel, run.parallel.recompute_granularity
    belongs = {"recompute_method": "full", "recompute_num_layers": "full", "recompute_modules": "selective"}
    for name, owner in belongs.items():
        if getattr(parallel, name) is not None and granularity != owner:
            yield Violation(
                (f"parallel.{name}", "parallel.recompute_granularity"),
                f"parallel.{name} belongs to recompute_granularity={owner}, and it is {granularity}; "
                f"set that to {owner}, or remove this key",
            )
    if granularity != "full" or any(_layers_per_stage(run)) or any(_interleaved(run)):
        return
    layers = [stage // parallel.chunks_per_stage for stage in parallel.stage_layers(run.model.num_layers)]
    amount, least = parallel.recompute_num_layers or 1, min(layers)
    key = ("parallel.recompute_num_layers",)
    if parallel.recompute_method == "block":
        if amount > least:
            yield Violation(
                key,
                f"parallel.recompute_num_layers={amount} is more than the {least} layers that a process holds "
                f"in one piece; nearest: {least}",
            )
    elif any(stage % amount for stage in layers):
        yield Violation(
            key,
            f"parallel.recompute_num_layers={amount} does not divide the layers that a process holds in one piece, "
            f"{_listed(layers)}, and uniform recomputes equal groups; nearest: "
            f"{nearest_divisors(gcd(*layers), amount)}, or recompute_method=block",
        )


def _listed(layers: list[int]) -> str:
    """``8``, or ``7, 8, 8, 9`` where stages differ."""
    return str(layers[0]) if len(set(layers)) == 1 else ", ".join(map(str, layers))


PARALLEL_RULES: tuple[Rule, ...] = (
    _world_size,
    _global_batch,
    _layers_per_stage,
    _interleaved,
    _tensor_parallel_shards,
    _sequence_shards,
    _overlap,
    _recompute,
)
