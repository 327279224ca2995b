"""Which of Megatron-LM's formats a folder holds."""

from pathlib import Path
from typing import Any

from megatron_ext.convert.foreign.latest import latest
from megatron_ext.convert.foreign.megatron_dist import read_dist
from megatron_ext.convert.foreign.megatron_files import read_files
from megatron_ext.convert.foreign.recipes import Recipes
from megatron_ext.errors import ConversionError

LATEST = "latest_checkpointed_iteration.txt"


def read_megatron(folder: Path, *, vocab_size: int | None = None) -> tuple[Recipes, dict[str, Any]]:
    """The tensors of a checkpoint of Megatron-LM under their Hugging Face names, and a ``config.json`` for them.

    Args:
        folder: of all checkpoints of a run (its latest is read), or of one iteration.
        vocab_size: rows of the embedding that are tokens, where the checkpoint does not say.

    Raises:
        CheckpointError: the checkpoint is damaged or unsafe.
        ConversionError: there is none, or it holds no Llama.
    """
    iteration = latest(folder, LATEST, _folder_name)
    if (iteration / "metadata.json").is_file():
        return read_dist(iteration, vocab_size=vocab_size)
    if any(iteration.glob("mp_rank_*")):
        return read_files(iteration, vocab_size=vocab_size)
    raise ConversionError(
        f"{iteration}: neither metadata.json nor mp_rank_*: not a checkpoint of Megatron-LM"
    )


def _folder_name(content: str) -> str | None:
    if content == "release":
        return content
    return f"iter_{int(content):07d}" if content.isascii() and content.isdigit() else None
