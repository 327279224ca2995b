"""What must hold between values of different keys. Rules report and never change a value."""

from collections.abc import Iterator

from megatron_ext.config.rules_data import DATA_RULES
from megatron_ext.config.rules_kernels import KERNEL_RULES
from megatron_ext.config.rules_model import MODEL_RULES
from megatron_ext.config.rules_parallel import PARALLEL_RULES
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


def _positions(run: RunConfig) -> Iterator[Violation]:
    length, limit = run.training.seq_length, run.model.max_position_embeddings
    if length > limit:
        yield Violation(
            ("training.seq_length", "model.max_position_embeddings"),
            f"training.seq_length={length} is longer than model.max_position_embeddings={limit}; "
            f"nearest: {limit}",
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


def _start(run: RunConfig) -> Iterator[Violation]:
    checkpoint = run.checkpoint
    if checkpoint.load is not None and checkpoint.load_hf is not None:
        yield Violation(
            ("checkpoint.load_hf", "checkpoint.load"),
            f"checkpoint.load_hf={checkpoint.load_hf} and checkpoint.load={checkpoint.load} are two places to start "
            "from; remove one",
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
    *PARALLEL_RULES,
    *MODEL_RULES,
    *KERNEL_RULES,
    _positions,
    _tokenizer_model,
    *DATA_RULES,
    *TRAINING_RULES,
    _start,
    _launcher,
)
