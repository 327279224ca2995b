"""Meta's own Llama checkpoints: ``params.json`` and one ``consolidated.NN.pth`` for each model-parallel rank.

The layout is that of ``llama/model.py`` in Meta's repositories: ``wq``, ``wk``, ``wv``, ``w1``, ``w3`` and
``output`` are split by rows, ``wo`` and ``w2`` by columns. Where there are fewer KV heads than ranks, neighbouring
ranks, whose queries share a head, hold the same. Llama 1 and 2 split the embedding by columns, Llama 3 by rows.
Rotary pairs are neighbours (0, 1), (2, 3), …; Hugging Face and Megatron pair i with i + head_size / 2.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from megatron_ext.convert.foreign.pickled import load
from megatron_ext.convert.foreign.recipes import (
    EMBEDDING,
    HEAD,
    Make,
    Recipe,
    Recipes,
    Shards,
    columns,
    rows,
    whole,
)
from megatron_ext.errors import ConversionError

PARAMS = "params.json"
_POSITIONS = "Llama 1: 2048, Llama 2: 4096, Llama 3: 8192, Llama 3.1 and later: 131072"


def read_meta(
    folder: Path, *, max_position_embeddings: int | None = None, rope_scaling_factor: float | None = None
) -> tuple[Recipes, dict[str, Any]]:
    """The tensors of a folder of Meta's under their Hugging Face names, and a ``config.json`` for them.

    Args:
        folder: holds ``params.json`` and ``consolidated.*.pth``.
        max_position_embeddings: length the model was trained for, which the files do not say.
        rope_scaling_factor: of Llama 3.1 and later, where ``params.json`` does not say it.

    Raises:
        ConversionError: a file is missing, damaged or unsafe; the tensors are not those of a Llama; or an
            argument is needed.
    """
    params = _params(folder / PARAMS)
    shards = _shards(folder)
    dim, heads = params["dim"], params["n_heads"]
    kv_heads = params.get("n_kv_heads") or heads
    recipes = {EMBEDDING: _embedding(shards, dim)}
    copies = _copies(folder, shards.num_ranks, kv_heads)
    for layer in range(params["n_layers"]):
        recipes |= _layer(shards, layer, heads, kv_heads, copies)
    recipes["model.norm.weight"] = Recipe(shards.take_same("norm.weight"), whole)
    if "output.weight" in shards:
        recipes[HEAD] = Recipe(shards.take("output.weight"), rows)
    shards.drop("rope.freqs")  # computed
    shards.finish()
    # Llama 3.2 stores the tied embedding a second time.
    source = Recipes(recipes)
    is_tied = HEAD not in recipes or source.are_same(EMBEDDING, HEAD)
    config = {
        "model_type": "llama",
        "vocab_size": source.shape(EMBEDDING)[0],
        "hidden_size": dim,
        "intermediate_size": source.shape("model.layers.0.mlp.gate_proj.weight")[0],
        "num_hidden_layers": params["n_layers"],
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "rms_norm_eps": params["norm_eps"],
        "rope_theta": params.get("rope_theta", 10000.0),
        "rope_scaling": _rope_scaling(params, rope_scaling_factor),
        "max_position_embeddings": _positions(max_position_embeddings),
        "tie_word_embeddings": is_tied,
    }
    return source, config


def _params(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConversionError(f"{path}: missing; {path.parent} is not a folder of Meta's")
    try:
        params = json.loads(path.read_bytes())
    except ValueError as error:
        raise ConversionError(f"{path}: not JSON: {error}") from error
    if not isinstance(params, dict):
        raise ConversionError(f"{path}: holds a {type(params).__name__}, not an object")
    for key, kind in {"dim": int, "n_heads": int, "n_layers": int, "norm_eps": float}.items():
        if not isinstance(params.get(key), kind) or params[key] <= 0:
            raise ConversionError(f"{path}: {key} is {params.get(key)!r}, not a positive {kind.__name__}")
    if params.get("n_kv_heads") is not None and not isinstance(params["n_kv_heads"], int):
        raise ConversionError(f"{path}: n_kv_heads is {params['n_kv_heads']!r}, not a number of heads")
    unknown = sorted({"quantization_args", "lora_args", "moe_args", "vision_chunk_size"} & params.keys())
    if unknown:
        raise ConversionError(f"{path}: models with {', '.join(unknown)} are not supported")
    return params


def _shards(folder: Path) -> Shards:
    files = sorted(folder.glob("consolidated.*.pth"))
    expected = [f"consolidated.{rank:02d}.pth" for rank in range(len(files))]
    if not files or [path.name for path in files] != expected:
        found = ", ".join(path.name for path in files) or "none"
        raise ConversionError(
            f"{folder}: consolidated.00.pth and those that follow are needed; found {found}"
        )
    ranks = [load(path) for path in files]
    for path, rank in zip(files, ranks, strict=True):
        if not isinstance(rank, dict) or not all(isinstance(value, torch.Tensor) for value in rank.values()):
            raise ConversionError(f"{path}: not a dictionary of tensors")
    return Shards(ranks, str(folder))


def _embedding(shards: Shards, dim: int) -> Recipe:
    parts = shards.take("tok_embeddings.weight")
    return Recipe(parts, rows if parts[0].shape[-1] == dim else columns)


def _copies(folder: Path, ranks: int, kv_heads: int) -> int:
    """How many neighbouring ranks hold the same KV head: those that share its queries, where heads are fewer."""
    if kv_heads >= ranks:
        return 1
    if ranks % kv_heads:
        raise ConversionError(f"{folder}: {kv_heads} KV heads do not divide among {ranks} consolidated.*.pth")
    return ranks // kv_heads


def _layer(shards: Shards, layer: int, heads: int, kv_heads: int, copies: int) -> dict[str, Recipe]:
    prefix, ours = f"layers.{layer}", f"model.layers.{layer}"
    joined: dict[str, tuple[str, Make]] = {
        "attention.wq": ("self_attn.q_proj", _half_rotated(heads)),
        "attention.wk": ("self_attn.k_proj", _half_rotated(kv_heads)),
        "attention.wv": ("self_attn.v_proj", rows),
        "attention.wo": ("self_attn.o_proj", columns),
        "feed_forward.w1": ("mlp.gate_proj", rows),
        "feed_forward.w3": ("mlp.up_proj", rows),
        "feed_forward.w2": ("mlp.down_proj", columns),
    }
    norms = {"attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
    repeated = {"attention.wk": copies, "attention.wv": copies}
    recipes = {
        f"{ours}.{hf}.weight": Recipe(
            shards.take_same(f"{prefix}.{name}.weight", repeated.get(name, 1)), make
        )
        for name, (hf, make) in joined.items()
    }
    return recipes | {
        f"{ours}.{hf}.weight": Recipe(shards.take_same(f"{prefix}.{name}.weight"), whole)
        for name, hf in norms.items()
    }


def _half_rotated(heads: int) -> Make:
    """Rows 0, 2, 4, … of each head, then 1, 3, 5, …: neighbours become pairs half a head apart."""

    def make(parts: Sequence[torch.Tensor]) -> torch.Tensor:
        matrix = rows(parts)
        return matrix.reshape(heads, -1, 2, matrix.shape[1]).transpose(1, 2).reshape(matrix.shape)

    return make


def _rope_scaling(params: Mapping[str, Any], factor: float | None) -> dict[str, Any] | None:
    if not params.get("use_scaled_rope"):
        return None
    factor = params.get("rope_scaling_factor") or factor
    if factor is None:
        raise ConversionError(
            f"{PARAMS}: use_scaled_rope is set, without a factor; add --rope-scaling-factor (Llama 3.1 and 3.3: 8, "
            "Llama 3.2: 32)"
        )
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": params.get("rope_high_freq_factor") or 4.0,
        "original_max_position_embeddings": 8192,
    }


def _positions(given: int | None) -> int:
    if given is None:
        raise ConversionError(
            f"{PARAMS} does not say how many positions the model was trained for; add "
            f"--max-position-embeddings ({_POSITIONS})"
        )
    return given
