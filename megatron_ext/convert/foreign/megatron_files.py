"""Megatron-LM's ``mp_rank_*/model_optim_rng.pt``: one file for each tensor- and pipeline-parallel rank.

Two generations of names are in use: megatron-core's, and those of the models before it (``language_model``).
Each file numbers its layers from 0. Both keep queries, keys and values by KV head, and each rank's fc1 is its
part of gate above its part of up.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from megatron_ext.convert.foreign.megatron_args import config_of
from megatron_ext.convert.foreign.pickled import load
from megatron_ext.convert.foreign.recipes import (
    EMBEDDING,
    HEAD,
    Make,
    Recipe,
    Recipes,
    Shards,
    columns,
    first_rows,
    from_canonical,
    halves,
    rows,
    whole,
)
from megatron_ext.convert.llama import LLAMA
from megatron_ext.convert.rules import Step
from megatron_ext.errors import ConversionError

FILE_NAME = "model_optim_rng.pt"
_FOLDER = re.compile(r"mp_rank_(\d{2,})(?:_(\d{3,}))?")
_CHUNK = re.compile(r"model(\d*)")
_LAYER = re.compile(r"(decoder\.layers|language_model\.(?:encoder|transformer)\.layers)\.(\d+)\.(.+)")
_GROUPED = 2.0  # checkpoint_version from which queries, keys and values are ordered head by head

# canonical name: those it has had. In this order, megatron-core's with and without TransformerEngine, then older.
NAMES: dict[str, tuple[str, ...]] = {
    "embedding.word_embeddings.weight": ("language_model.embedding.word_embeddings.weight",),
    "output_layer.weight": ("language_model.output_layer.weight",),
    "decoder.final_layernorm.weight": tuple(
        f"language_model.{stack}.{norm}.weight"
        for stack in ("encoder", "transformer")
        for norm in ("final_norm", "final_layernorm")
    ),
    "self_attention.linear_qkv.layer_norm_weight": ("input_layernorm.weight", "input_norm.weight"),
    "self_attention.linear_qkv.weight": ("self_attention.query_key_value.weight",),
    "self_attention.linear_proj.weight": ("self_attention.dense.weight",),
    "mlp.linear_fc1.layer_norm_weight": (
        "pre_mlp_layernorm.weight",
        "post_attention_layernorm.weight",
        "post_attention_norm.weight",
    ),
    "mlp.linear_fc1.weight": ("mlp.dense_h_to_4h.weight",),
    "mlp.linear_fc2.weight": ("mlp.dense_4h_to_h.weight",),
}
OURS = {old: ours for ours, names in NAMES.items() for old in (ours, *names)}
_JOINED: dict[str, Make] = {
    "self_attention.linear_qkv.weight": rows,
    "self_attention.linear_proj.weight": columns,
    "mlp.linear_fc1.weight": halves,
    "mlp.linear_fc2.weight": columns,
}


def read_files(folder: Path, *, vocab_size: int | None = None) -> tuple[Recipes, dict[str, Any]]:
    """The tensors of one iteration's folder under their Hugging Face names, and a ``config.json`` for them.

    Args:
        folder: holds ``mp_rank_*``.
        vocab_size: rows of the embedding that are tokens, where the files do not say.

    Raises:
        ConversionError: a file is missing, damaged or unsafe, or the tensors are not those of a Llama.
    """
    grid = _grid(folder)
    states = [[_state(path) for path in stage] for stage in grid]
    config = config_of(states[0][0].get("args"), grid[0][0], vocab_size)
    version = states[0][0].get("checkpoint_version", 0)
    if not isinstance(version, int | float) or version < _GROUPED:
        raise ConversionError(
            f"{grid[0][0]}: checkpoint_version {version} keeps queries, keys and values in an older order; load and "
            "save it with a newer Megatron-LM first"
        )
    shards = Shards(
        [_merged(folder, [stage[rank] for stage in states]) for rank in range(len(grid[0]))], str(folder)
    )
    model = LLAMA.model_config(config)
    recipes = from_canonical(model, lambda step: _stored(shards, step, model.vocab_size))
    # A last pipeline stage has a copy of a tied embedding.
    copies = ("output_layer.weight", "word_embeddings_for_head.weight")
    for name in [name for name in copies if name in shards and not model.untie_embeddings_and_output_weights]:
        recipes[HEAD] = Recipe(shards.take(name), first_rows(model.vocab_size))
        if not Recipes(recipes).are_same(EMBEDDING, HEAD):
            raise ConversionError(f"{folder}: {name} differs from the embedding, although args ties them")
        del recipes[HEAD]
    shards.finish()
    return Recipes(recipes), config


def _grid(folder: Path) -> list[list[Path]]:
    """Files by pipeline rank, then tensor rank."""
    files: dict[tuple[int, int], Path] = {}
    for path in folder.glob("mp_rank_*"):
        match = _FOLDER.fullmatch(path.name)
        if match is None:
            raise ConversionError(
                f"{path}: not a tensor- and pipeline-parallel rank; experts are not supported"
            )
        files[int(match[2] or 0), int(match[1])] = path / FILE_NAME
    stages, ranks = (1 + max((place[axis] for place in files), default=0) for axis in (0, 1))
    if len(files) != stages * ranks:
        raise ConversionError(
            f"{folder}: {len(files)} folders mp_rank_*, not {ranks} tensor × {stages} pipeline ranks"
        )
    return [[files[stage, rank] for rank in range(ranks)] for stage in range(stages)]


def _state(path: Path) -> Mapping[str, Any]:
    state = load(path)
    if not isinstance(state, dict):
        raise ConversionError(f"{path}: holds a {type(state).__name__}, not a checkpoint of Megatron-LM")
    return state


def _merged(folder: Path, stages: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """One tensor rank's tensors of all stages, by today's names, layers numbered through."""
    merged: dict[str, torch.Tensor] = {}
    chunks = sorted(
        {int(match[1] or 0) for state in stages for key in state if (match := _CHUNK.fullmatch(key))}
    )
    first = 0
    # With interleaved pipelines each stage has several chunks of layers: chunk 0 of all stages comes first.
    for chunk in chunks:
        for stage, state in enumerate(stages):
            names = dict(_flat(state.get("model" if chunk == 0 and "model" in state else f"model{chunk}")))
            count = 0
            for name, tensor in names.items():
                match = _LAYER.fullmatch(name)
                if match is not None:
                    count = max(count, int(match[2]) + 1)
                    name = f"decoder.layers.{first + int(match[2])}.{OURS.get(match[3], match[3])}"  # noqa: PLW2901
                ours = OURS.get(name, name)
                if ours in merged:
                    raise ConversionError(f"{folder}: {name} of pipeline stage {stage} is in the files twice")
                merged[ours] = tensor
            first += count
    return merged


def _flat(state: object, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors of nested dictionaries; what TransformerEngine keeps beside them is left out."""
    if isinstance(state, torch.Tensor) and not prefix.endswith("_extra_state."):
        yield prefix.removesuffix("."), state
    elif isinstance(state, dict):
        for name, value in state.items():
            yield from _flat(value, f"{prefix}{name}.")


def _stored(shards: Shards, step: Step, vocab_size: int) -> Recipe:
    canonical = step.rule.canonical
    if step.layer is None and canonical != "decoder.final_layernorm.weight":
        return Recipe(shards.take(canonical), first_rows(vocab_size))
    kind = canonical.removeprefix("decoder.layers.")
    name = canonical if step.layer is None else f"decoder.layers.{step.layer}.{kind}"
    if kind in _JOINED:
        return Recipe(shards.take(name), _JOINED[kind])
    return Recipe(shards.take_same(name), whole)
