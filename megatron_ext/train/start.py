"""What a run starts from, and whether it holds this run's model.

Launching asks first, and waits for torch only where a Hugging Face folder is to be read.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from megatron_ext.checkpoint.manifest import Manifest
from megatron_ext.checkpoint.store import CheckpointStore
from megatron_ext.config.sections import ModelConfig, RunConfig
from megatron_ext.convert import assets
from megatron_ext.errors import CheckpointError, ConversionError

if TYPE_CHECKING:
    from megatron_ext.convert.hf_slices import HFSlices

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

    @property
    def assets(self) -> Path:
        """Folder of the configuration and tokenizer files that came with the imported model, if there were any."""
        return self.folder / assets.FOLDER


@dataclasses.dataclass(frozen=True)
class HFStart:
    """A Hugging Face folder whose weights to start from."""

    folder: Path
    tensors: "HFSlices"
    resumes: Literal[False] = False

    @property
    def assets(self) -> Path:
        """The folder itself."""
        return self.folder


def find_start(config: RunConfig) -> Start | HFStart | None:
    """The run's own latest checkpoint, else ``checkpoint.load`` or ``checkpoint.load_hf``, else None: random weights.

    Raises:
        CheckpointError: there is no model where ``checkpoint.load`` or ``load_hf`` points, or it is another one.
    """
    own = CheckpointStore(Path(config.checkpoint_dir)).latest()
    if own is not None:
        return _opened(config, own, resumes=True)
    if config.checkpoint.load is not None:
        return _opened(config, CheckpointStore.resolve(Path(config.checkpoint.load)), resumes=False)
    if config.checkpoint.load_hf is not None:
        return _opened_hf(config, Path(config.checkpoint.load_hf))
    return None


def _opened_hf(config: RunConfig, folder: Path) -> HFStart:
    from megatron_ext.convert.hf_slices import HFSlices  # noqa: PLC0415 - imports torch

    try:
        tensors = HFSlices(folder)
    except ConversionError as error:
        raise CheckpointError(f"checkpoint.load_hf={folder}: {error}") from error
    differences = _differences(config.model, tensors.model, "config.json")
    if differences:
        listed = "\n".join(f"  model.{line}" for line in differences)
        raise CheckpointError(
            f"checkpoint.load_hf={folder} is another model than this run describes:\n{listed}"
        )
    return HFStart(folder, tensors)


def _opened(config: RunConfig, folder: Path, *, resumes: bool) -> Start:
    manifest = Manifest.read(folder)
    differences = _differences(config.model, manifest.model, "the checkpoint")
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


def _differences(ours: ModelConfig, theirs: ModelConfig, place: str) -> list[str]:
    pairs = ((name, getattr(ours, name), getattr(theirs, name)) for name in SHAPES)
    return [
        f"{name} is {mine} in the run and {other} in {place}" for name, mine, other in pairs if mine != other
    ]
