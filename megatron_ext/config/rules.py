"""What must hold between values of different keys. Rules report and never change a value."""

from collections.abc import Iterator

from megatron_ext.config.rules_data import DATA_RULES
from megatron_ext.config.rules_training import TRAINING_RULES
from megatron_ext.config.sections import RunConfig
from megatron_ext.config.violation import Rule, Violation


def check(run: RunConfig) -> list[str]:
    """Every broken rule as one line; an empty list for a run that can start."""
    return [violation.text for violation in violations(run)]


def violations(run: RunConfig) -> list[Violation]:
    """Every broken rule; rules that need a section which could not be read (LookupError) are left out."""
    found: list[Violation] = []
    for rule in RULES:
        try:
            found.extend(rule(run))
        except LookupError:
            continue
    return found


def nearest_multiples(value: int, unit: int) -> str:
    """The multiples of ``unit`` on both sides of ``value``, as text; 0 is none."""
    below = value // unit * unit
    return ", ".join(str(number) for number in (below, below + unit) if number > 0)


def nearest_divisors(number: int, value: int) -> str:
    """The divisors of ``number`` on both sides of ``value``, as text."""
    divisors = [candidate for candidate in range(1, number + 1) if number % candidate == 0]
    below = [divisor for divisor in divisors if divisor < value][-1:]
    return ", ".join(str(divisor) for divisor in below + [d for d in divisors if d > value][:1])


def _world_size(run: RunConfig) -> Iterator[Violation]:
    launch, parallel = run.launch, run.parallel
    if launch.world_size % parallel.model_parallel_size:
        sizes = f"{parallel.tensor_model_parallel_size} × {parallel.pipeline_model_parallel_size}"
        yield Violation(
            ("launch.nproc_per_node", "launch.nnodes", "parallel.tensor_model_parallel_size"),
            f"launch.nnodes × nproc_per_node = {launch.nnodes} × {launch.nproc_per_node} processes is not a "
            f"multiple of tensor_model_parallel_size × pipeline_model_parallel_size = {sizes}; nearest: "
            f"{nearest_multiples(launch.world_size, parallel.model_parallel_size)} processes",
        )


def _global_batch(run: RunConfig) -> Iterator[Violation]:
    training, copies = run.training, run.data_parallel_size
    if run.launch.world_size % run.parallel.model_parallel_size:
        return  # data_parallel_size means nothing then: reported above
    step = training.micro_batch_size * copies
    if training.global_batch_size % step:
        yield Violation(
            ("training.global_batch_size", "training.micro_batch_size"),
            f"training.global_batch_size={training.global_batch_size} is not a multiple of micro_batch_size "
            f"× data_parallel_size = {training.micro_batch_size} × {copies}; nearest: "
            f"{nearest_multiples(training.global_batch_size, step)}",
        )


def _layers_per_stage(run: RunConfig) -> Iterator[Violation]:
    layers, stages = run.model.num_layers, run.parallel.pipeline_model_parallel_size
    if layers % stages:
        yield Violation(
            ("parallel.pipeline_model_parallel_size", "model.num_layers"),
            f"parallel.pipeline_model_parallel_size={stages} does not divide model.num_layers={layers}, and "
            f"every stage holds as many layers; nearest: {nearest_divisors(layers, stages)}",
        )


def _tensor_parallel_shards(run: RunConfig) -> Iterator[Violation]:
    model, tensor = run.model, run.parallel.tensor_model_parallel_size
    amounts = {"num_attention_heads": model.num_attention_heads, "ffn_hidden_size": model.ffn_hidden_size}
    if model.num_query_groups is not None:
        amounts["num_query_groups"] = model.num_query_groups
    for name, amount in amounts.items():
        if amount % tensor:
            yield Violation(
                ("parallel.tensor_model_parallel_size", f"model.{name}"),
                f"parallel.tensor_model_parallel_size={tensor} does not divide model.{name}={amount}, which "
                f"tensor parallelism splits evenly; nearest: {nearest_divisors(amount, tensor)}",
            )


def _attention_shape(run: RunConfig) -> Iterator[Violation]:
    model = run.model
    heads, groups = model.num_attention_heads, model.query_groups
    if heads % groups:
        yield Violation(
            ("model.num_query_groups",),
            f"model.num_query_groups={groups} does not divide num_attention_heads={heads}, and every "
            f"group serves as many heads; nearest: {nearest_divisors(heads, groups)}",
        )
    if model.kv_channels is None and model.hidden_size % heads:
        yield Violation(
            ("model.num_attention_heads", "model.hidden_size"),
            f"model.num_attention_heads={heads} does not divide hidden_size={model.hidden_size}; nearest: "
            f"{nearest_divisors(model.hidden_size, heads)}, or set kv_channels to the size of a head",
        )
    elif model.head_size % 2:
        key = "kv_channels" if model.kv_channels else "hidden_size"
        yield Violation(
            (f"model.{key}",),
            f"model.{key}: heads of size {model.head_size} are odd, and rotary embeddings turn pairs of "
            f"channels; nearest head sizes: {nearest_multiples(model.head_size, 2)}",
        )


def _sequence_parallel(run: RunConfig) -> Iterator[Violation]:
    tensor, length = run.parallel.tensor_model_parallel_size, run.training.seq_length
    if not run.parallel.sequence_parallel:
        return
    if tensor == 1:
        yield Violation(
            ("parallel.sequence_parallel",),
            "parallel.sequence_parallel=true splits the sequence over the tensor parallel processes, and "
            "tensor_model_parallel_size=1; set it to 2 or more, or sequence_parallel=false",
        )
    elif length % tensor:
        yield Violation(
            ("training.seq_length",),
            f"training.seq_length={length} is not a multiple of tensor_model_parallel_size={tensor}, which "
            f"sequence_parallel splits it over; nearest: {nearest_multiples(length, tensor)}",
        )


def _positions(run: RunConfig) -> Iterator[Violation]:
    length, limit = run.training.seq_length, run.model.max_position_embeddings
    if length > limit:
        yield Violation(
            ("training.seq_length", "model.max_position_embeddings"),
            f"training.seq_length={length} is longer than model.max_position_embeddings={limit}; "
            f"nearest: {limit}",
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


def _tokenizer_model(run: RunConfig) -> Iterator[Violation]:
    tokenizer = run.tokenizer
    if tokenizer.type == "ByteTokenizer" and tokenizer.model is not None:
        yield Violation(
            ("tokenizer.model",), "tokenizer.model: ByteTokenizer has no model file; remove the key"
        )
    elif tokenizer.type != "ByteTokenizer" and not tokenizer.model:
        kind = (
            "the tokenizer.model file"
            if tokenizer.type == "SentencePieceTokenizer"
            else "the tokenizer's folder"
        )
        yield Violation(
            ("tokenizer.model", "tokenizer.type"),
            f"tokenizer.model: {tokenizer.type} needs {kind}; name it here",
        )


def _launcher(run: RunConfig) -> Iterator[Violation]:
    launch = run.launch
    if launch.node_rank >= launch.nnodes:
        yield Violation(
            ("launch.node_rank", "launch.nnodes"),
            f"launch.node_rank={launch.node_rank} is not below nnodes={launch.nnodes}; nodes count from 0 to "
            f"{launch.nnodes - 1}",
        )
    if launch.hostfile is not None and launch.launcher not in ("mpirun", "deepspeed"):
        yield Violation(
            ("launch.hostfile",),
            f"launch.hostfile is read by mpirun and deepspeed, and launch.launcher={launch.launcher}; remove "
            "it, or choose one of these",
        )


RULES: tuple[Rule, ...] = (
    _world_size,
    _global_batch,
    _layers_per_stage,
    _tensor_parallel_shards,
    _attention_shape,
    _sequence_parallel,
    _positions,
    _tokenizer_model,
    *DATA_RULES,
    *TRAINING_RULES,
    _overlap,
    _launcher,
)
