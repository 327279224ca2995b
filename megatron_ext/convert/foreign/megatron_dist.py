"""Megatron-LM's ``torch_dist`` folders: megatron-core's tensors, whole, and Megatron-LM's arguments.

Layers are stacked on axis 0, as in our own checkpoints, or stand apart where they are not all alike.
"""

from functools import partial
from pathlib import Path
from typing import Any

from megatron_ext.checkpoint.canonical import VOCABULARY_KEYS, CanonicalReader
from megatron_ext.convert.foreign.megatron_args import config_of
from megatron_ext.convert.foreign.megatron_files import NAMES
from megatron_ext.convert.foreign.pickled import load, only_harmless
from megatron_ext.convert.foreign.recipes import (
    Part,
    Recipe,
    Recipes,
    first_rows,
    from_canonical,
    listed,
    whole,
)
from megatron_ext.convert.llama import LLAMA
from megatron_ext.convert.rules import Step
from megatron_ext.errors import ConversionError

COMMON = "common.pt"
_LAYERS = "decoder.layers."
_OPTIMIZER = "chained_"  # several optimizers in a row: chained_0.optimizer.…


def read_dist(folder: Path, *, vocab_size: int | None = None) -> tuple[Recipes, dict[str, Any]]:
    """The tensors of one iteration's folder under their Hugging Face names, and a ``config.json`` for them.

    Args:
        folder: holds ``metadata.json``, ``.metadata``, ``common.pt`` and ``*.distcp``.
        vocab_size: rows of the embedding that are tokens, where the arguments do not say.

    Raises:
        CheckpointError: the folder is damaged or unsafe.
        ConversionError: its arguments or tensors are not those of a Llama.
    """
    with only_harmless():
        reader = CanonicalReader(folder)
    common = load(folder / COMMON)
    config = config_of(common.get("args"), folder / COMMON, vocab_size)
    model = LLAMA.model_config(config)
    left = {key for key in reader.keys() if not key.startswith(_OPTIMIZER)}  # noqa: SIM118 - not a dict
    taken: set[str] = set()

    def stored(step: Step) -> Recipe:
        key, part = _find(reader, left, step, model.num_layers)
        taken.add(key)
        is_vocabulary = step.rule.canonical in VOCABULARY_KEYS
        return Recipe((part,), first_rows(model.vocab_size) if is_vocabulary else whole)

    recipes = from_canonical(model, stored)
    if left - taken:
        raise ConversionError(f"{folder}: not expected in a Llama model: {listed(left - taken)}")
    return Recipes(recipes), config


def _find(reader: CanonicalReader, keys: set[str], step: Step, num_layers: int) -> tuple[str, Part]:
    """The record of one layer of a canonical tensor, under whichever of its names there is."""
    canonical, layer = step.rule.canonical, step.layer
    kind = canonical.removeprefix(_LAYERS)
    for name in (kind, *NAMES[kind]):
        apart = name if layer is None else f"{_LAYERS}{layer}.{name}"
        if apart in keys:
            return apart, Part(reader.shape(apart), reader.dtype(apart), partial(reader.read, apart))
        stacked = f"{_LAYERS}{name}"
        if layer is not None and stacked in keys:
            layers, *shape = reader.shape(stacked)
            if layers != num_layers:
                raise ConversionError(f"{stacked} has {layers} layers, the args say {num_layers}")
            read = partial(reader.read_layer, stacked, layer)
            return stacked, Part(tuple(shape), reader.dtype(stacked), read)
    raise ConversionError(f"{canonical} is missing" + ("" if layer is None else f" for layer {layer}"))
