"""Which checkpoint a run starts from, and whether it holds this run's model. Knows no torch: launching asks first."""

import dataclasses
from pathlib import Path

from megatron_ext.checkpoint.manifest import Manifest
from megatron_ext.checkpoint.store import CheckpointStore
from megatron_ext.config.sections import ModelConfig, RunConfig
from megatron_ext.errors import CheckpointError

SHAPES = (
    "num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "query_groups", "head_size",
    "vocab_size", "rotary_base", "rope_scaling", "layernorm_epsilon", "untie_embeddings_and_output_weights",
    "add_qkv_bias", "qk_layernorm", "window_size",
)  # fmt: skip
"""What must agree between a run and a checkpoint: everything that changes a tensor or what is computed with it."""


@dataclasses.dataclass(frozen=True)
class Start:
    """A checkpoint folder to start from."""

    folder: Path
    manifest: Manifest
    resumes: bool
    """Whether the run goes on where it was, with optimizer and data position, or takes the weights only."""


def find_start(config: RunConfig) -> Start | None:
    """The run's own latest checkpoint, else ``checkpoint.load``, else None: random weights.

    Raises:
        CheckpointError: there is no checkpoint where ``checkpoint.load`` points, or it is of another model.
    """
    own = CheckpointStore(Path(config.checkpoint_dir)).latest()
    if own is not None:
        return _opened(config, own, resumes=True)
    if config.checkpoint.load is not None:
        return _opened(config, CheckpointStore.resolve(Path(config.checkpoint.load)), resumes=False)
    return None


def _opened(config: RunConfig, folder: Path, *, resumes: bool) -> Start:
    manifest = Manifest.read(folder)
    differences = _differences(config.model, manifest.model)
    if differences:
        listed = "\n".join(f"  model.{line}" for line in differences)
        raise CheckpointError(f"{folder} holds another model than this run describes:\n{listed}")
    obstacle = _obstacle(config, manifest) if resumes else None
    if obstacle is not None:
        raise CheckpointError(
            f"{folder} {obstacle}, so the run in {config.checkpoint_dir} cannot resume from it; "
            f"name it under checkpoint.load and give the run a folder of its own to start from its weights"
        )
    return Start(folder, manifest, resumes)


def _obstacle(config: RunConfig, manifest: Manifest) -> str | None:
    """What keeps the optimizer's state from being loaded."""
    if not manifest.has_optimizer:
        return "has no optimizer state"
    precision = config.training.precision
    if manifest.params_dtype != precision:
        return f"was saved with training.precision={manifest.params_dtype} and not {precision}"
    return None


def _differences(ours: ModelConfig, theirs: ModelConfig) -> list[str]:
    pairs = ((name, getattr(ours, name), getattr(theirs, name)) for name in SHAPES)
    return [
        f"{name} is {mine} in the run and {other} in the checkpoint"
        for name, mine, other in pairs
        if mine != other
    ]
