"""What another framework saved becomes a canonical checkpoint, as if it had come from Hugging Face."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megatron_ext.checkpoint.manifest import DtypeName
from megatron_ext.convert import assets
from megatron_ext.convert.foreign.recipes import Recipes
from megatron_ext.convert.from_hf import import_model
from megatron_ext.errors import ConversionError


def import_foreign(
    model: tuple[Recipes, Mapping[str, Any]],
    origin: Path,
    output: Path,
    *,
    tokenizer: Path | None = None,
    overwrite: bool = False,
    dtype: DtypeName | None = None,
) -> Path:
    """Make what a run can start from; see ``from_hf.import_hf``.

    Args:
        model: tensors and ``config.json``, from one of the readers beside this file.
        origin: what was read.
        output: new folder.
        tokenizer: folder whose tokenizer files are carried along; default: ``origin``.
        overwrite: replace an earlier import.
        dtype: fp32, bf16 or fp16; None keeps each tensor's own.

    Returns:
        The folder of the checkpoint.

    Raises:
        ConversionError: the input is not understood in full, or the output is in the way.
    """
    if tokenizer is not None and not tokenizer.is_dir():
        raise ConversionError(
            f"{tokenizer}: no such folder; --tokenizer names the one with the tokenizer's files"
        )
    source, config = model
    return import_model(
        source,
        config,
        output,
        origin=origin,
        overwrite=overwrite,
        dtype=dtype,
        carried_from=tokenizer or origin,
        carried=assets.TOKENIZER_FILES,
    )
