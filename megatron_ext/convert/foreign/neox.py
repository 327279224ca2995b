"""Llama checkpoints of GPT-NeoX: DeepSpeed's ``global_stepN`` folders.

With a pipeline, DeepSpeed writes each layer to files of its own (``layer_LL-model_RR-model_states.pt``, RR the
tensor-parallel rank); without, each rank's whole model to ``mp_rank_RR_model_states.pt``, names beginning with
``sequential.LL``. Layer 0 is the embedding, the decoder's layers begin at 2, and the final norm and the output
stand 1 and 2 after a layer that only reshapes (``megatron/model/gpt2_model.py``).

Rotary dimensions have Hugging Face's order. What is fused (``megatron/model/transformer.py``):

- with as many KV heads as heads, ``query_key_value`` holds query, key, value of each head in turn;
- with fewer, a rank's queries, then its keys, then its values ("concatenated", since commit 96c242eb of
  14 November 2024), or, before, for each query head its query and an equal share of the rank's keys and values
  ("by-query-head"). Shapes do not tell these apart;
- ``linear1`` holds up, then gate, on each rank; older models have ``w1`` (gate), ``w3`` (up) and ``w2``.
"""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from megatron_ext.convert.foreign.latest import latest
from megatron_ext.convert.foreign.neox_config import FOLDER, config_of, read_yaml
from megatron_ext.convert.foreign.pickled import load
from megatron_ext.convert.foreign.recipes import (
    EMBEDDING,
    HEAD,
    Make,
    Recipe,
    Recipes,
    Shards,
    checked_vocab_size,
    columns,
    first_rows,
    rows,
    whole,
)
from megatron_ext.errors import ConversionError

GQALayout = Literal["concatenated", "by-query-head"]
LATEST = "latest"
_LAYER_FILE = re.compile(r"layer_(\d+)-model_(\d+)-model_states\.pt")
_RANK_FILE = re.compile(r"mp_rank_(\d+)_model_states\.pt")


def read_neox(
    folder: Path,
    *,
    config: Path | None = None,
    gqa_layout: GQALayout | None = None,
    vocab_size: int | None = None,
) -> tuple[Recipes, dict[str, Any]]:
    """The tensors of a checkpoint under their Hugging Face names, and a ``config.json`` for them.

    Args:
        folder: of all checkpoints of a run (its latest is read), or one ``global_stepN``.
        config: YAML file of the run, or folder of several; default: those in the checkpoint.
        gqa_layout: order of ``query_key_value`` in a model with fewer KV heads than heads.
        vocab_size: rows of the embedding that are tokens.

    Raises:
        ConversionError: a file is missing, damaged or unsafe; the tensors are not those of a Llama; or an
            argument is needed.
    """
    step = latest(folder, LATEST, str)
    place = config or step / FOLDER
    settings = read_yaml(place)
    hf = config_of(settings, place)
    heads, kv_heads, layers = (
        hf[key] for key in ("num_attention_heads", "num_key_value_heads", "num_hidden_layers")
    )
    shards = _shards(step)
    shards.drop(".rotary_emb.inv_freq")  # computed
    qkv = _query_key_value(step, heads, kv_heads, gqa_layout)
    embedding = shards.take("0.word_embeddings.weight")
    hf["vocab_size"] = checked_vocab_size(step, sum(part.shape[0] for part in embedding), vocab_size)
    vocabulary = first_rows(hf["vocab_size"])
    recipes = {EMBEDDING: Recipe(embedding, vocabulary)}
    for layer in range(layers):
        recipes |= _layer(shards, layer, qkv, settings.get("activation"))
    recipes["model.norm.weight"] = Recipe(shards.take_same(f"{layers + 3}.norm.scale"), whole)
    if not hf["tie_word_embeddings"]:
        recipes[HEAD] = Recipe(shards.take(f"{layers + 4}.final_linear.weight"), vocabulary)
    shards.finish()
    source = Recipes(recipes)
    hf["intermediate_size"] = source.shape("model.layers.0.mlp.gate_proj.weight")[0]
    return source, hf


def _shards(step: Path) -> Shards:
    """Tensors named ``LL.name``, LL the number in the sequence of layers, of each tensor-parallel rank."""
    ranks: dict[int, dict[str, torch.Tensor]] = {}
    for path in sorted(step.glob("layer_*-model_states.pt")):
        match = _LAYER_FILE.fullmatch(path.name)
        if match is not None:
            named = {f"{int(match[1])}.{name}": value for name, value in _tensors(load(path), path).items()}
            ranks.setdefault(int(match[2]), {}).update(named)
    for path in [] if ranks else sorted(step.glob("mp_rank_*_model_states.pt")):
        match = _RANK_FILE.fullmatch(path.name)
        state = load(path)
        if match is not None:
            module = _tensors(state.get("module") if isinstance(state, dict) else None, path)
            ranks[int(match[1])] = {name.removeprefix("sequential."): value for name, value in module.items()}
    if not ranks or sorted(ranks) != list(range(len(ranks))):
        raise ConversionError(
            f"{step}: layer_*-model_*-model_states.pt or mp_rank_*_model_states.pt of ranks 00, 01, … are needed; "
            f"found ranks {sorted(ranks)}"
        )
    return Shards([ranks[rank] for rank in sorted(ranks)], str(step))


def _tensors(state: object, path: Path) -> dict[str, torch.Tensor]:
    if not isinstance(state, dict):
        raise ConversionError(f"{path}: holds no tensors of a model")
    return {str(name): value for name, value in state.items() if isinstance(value, torch.Tensor)}


def _layer(shards: Shards, layer: int, qkv: Sequence[Make], activation: object) -> dict[str, Recipe]:
    stored, ours = f"{layer + 2}", f"model.layers.{layer}"
    fused = shards.take(f"{stored}.attention.query_key_value.weight")
    recipes = {f"self_attn.{name}_proj": Recipe(fused, make) for name, make in zip("qkv", qkv, strict=True)}
    recipes["self_attn.o_proj"] = Recipe(shards.take(f"{stored}.attention.dense.weight"), columns)
    for norm in ("input_layernorm", "post_attention_layernorm"):
        recipes[norm] = Recipe(shards.take_same(f"{stored}.{norm}.scale"), whole)
    is_fused = f"{stored}.mlp.linear1.weight" in shards
    if is_fused != (activation == "swiglu"):
        where = "mlp.linear1 is there" if is_fused else "mlp.linear1 is missing"
        raise ConversionError(f"layer {layer}: {where}, which does not go with activation {activation!r}")
    if is_fused:
        both = shards.take(f"{stored}.mlp.linear1.weight")
        recipes["mlp.up_proj"], recipes["mlp.gate_proj"] = (
            Recipe(both, partial(_half, half)) for half in (0, 1)
        )
        recipes["mlp.down_proj"] = Recipe(shards.take(f"{stored}.mlp.linear2.weight"), columns)
    else:
        recipes["mlp.gate_proj"] = Recipe(shards.take(f"{stored}.mlp.w1.weight"), rows)
        recipes["mlp.up_proj"] = Recipe(shards.take(f"{stored}.mlp.w3.weight"), rows)
        recipes["mlp.down_proj"] = Recipe(shards.take(f"{stored}.mlp.w2.weight"), columns)
    return {f"{ours}.{name}.weight": recipe for name, recipe in recipes.items()}


def _half(half: int, parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([part.chunk(2)[half] for part in parts])


def _query_key_value(
    step: Path, heads: int, kv_heads: int, layout: GQALayout | None
) -> tuple[Make, Make, Make]:
    """How to take queries, keys and values out of ``query_key_value``."""
    if kv_heads != heads and layout is None:
        raise ConversionError(
            f"{step}: with {heads} heads and {kv_heads} KV heads, query_key_value has had two orders that look the "
            "same; add --gqa-layout concatenated (trained with GPT-NeoX of 14 November 2024 or later) or "
            "--gqa-layout by-query-head (before)"
        )
    by_head = kv_heads == heads or layout == "by-query-head"
    q, k, v = (partial(_third, which, heads, kv_heads, by_head) for which in range(3))
    return q, k, v


def _third(
    which: int, heads: int, kv_heads: int, by_head: bool, parts: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Queries (0), keys (1) or values (2) of all ranks."""
    found = []
    for part in parts:
        blocks = (
            heads // len(parts) if by_head else 1
        )  # each: queries, keys, values in the ratio of head counts
        grouped = part.reshape(blocks, -1, part.shape[-1])
        unit = grouped.shape[1] * kv_heads // (heads + 2 * kv_heads)
        sizes = [grouped.shape[1] - 2 * unit, unit, unit]
        found.append(torch.split(grouped, sizes, dim=1)[which].flatten(0, 1))
    return torch.cat(found)
