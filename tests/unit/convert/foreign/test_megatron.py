"""Megatron-LM's layouts, written here as its models and its checkpointing.py define them."""

import argparse
import enum
import io
import itertools
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding
from tiny_llama import (
    FFN,
    HEAD_SIZE,
    HEADS,
    HIDDEN,
    LAYERS,
    VOCABULARY,
    Hostile,
    TinyLlama,
    assert_imported,
    imported_frequencies,
)

from megatron_ext.cli.main import run_verb
from megatron_ext.convert.foreign.importing import import_foreign
from megatron_ext.convert.foreign.megatron import read_megatron
from megatron_ext.errors import CheckpointError, ConversionError

PADDED = 48
# generation: embedding, output, final norm, prefix of layers, qkv, proj, fc1, fc2, two norms
NAMES: dict[str, tuple[str, ...]] = {
    "TransformerEngine": (
        "embedding.word_embeddings", "output_layer", "decoder.final_layernorm", "decoder.layers",
        "self_attention.linear_qkv", "self_attention.linear_proj", "mlp.linear_fc1", "mlp.linear_fc2",
        "self_attention.linear_qkv.layer_norm_weight", "mlp.linear_fc1.layer_norm_weight",
    ),
    "local": (
        "embedding.word_embeddings", "output_layer", "decoder.final_layernorm", "decoder.layers",
        "self_attention.linear_qkv", "self_attention.linear_proj", "mlp.linear_fc1", "mlp.linear_fc2",
        "input_layernorm.weight", "pre_mlp_layernorm.weight",
    ),
    "legacy": (
        "language_model.embedding.word_embeddings", "language_model.output_layer", "language_model.encoder.final_norm",
        "language_model.encoder.layers", "self_attention.query_key_value", "self_attention.dense",
        "mlp.dense_h_to_4h", "mlp.dense_4h_to_h", "input_norm.weight", "post_attention_norm.weight",
    ),
}  # fmt: skip


@pytest.fixture
def enums(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An enumeration of Megatron-LM's that is not there any more when its value is read."""
    module = types.ModuleType("megatron.model.enums")
    module.PositionEmbeddingType = enum.Enum(  # type: ignore[attr-defined]
        "PositionEmbeddingType", {"rope": 1}, module="megatron.model.enums"
    )
    monkeypatch.setitem(sys.modules, "megatron.model.enums", module)
    monkeypatch.setitem(sys.modules, "megatron.model", types.ModuleType("megatron.model"))
    return module


def _args(llama: TinyLlama, **changes: Any) -> argparse.Namespace:
    tied = llama.module.config.tie_word_embeddings
    values = {
        "num_layers": LAYERS, "hidden_size": HIDDEN, "ffn_hidden_size": FFN, "num_attention_heads": HEADS,
        "group_query_attention": llama.kv_heads < HEADS, "num_query_groups": llama.kv_heads, "kv_channels": HEAD_SIZE,
        "padded_vocab_size": PADDED, "max_position_embeddings": 64, "norm_epsilon": 1e-5, "rotary_base": 5000,
        "rotary_percent": 1.0, "normalization": "RMSNorm", "swiglu": True, "position_embedding_type": "rope",
        "untie_embeddings_and_output_weights": not tied, "params_dtype": torch.bfloat16,
        "data_path": ["a", "b"], "lr": 1e-4, "num_experts": None,
    }  # fmt: skip
    return argparse.Namespace(**values | changes)


def _padded(matrix: torch.Tensor) -> torch.Tensor:
    return torch.cat([matrix, torch.full((PADDED - VOCABULARY, HIDDEN), 9.0)])


def _qkv(llama: TinyLlama, layer: int) -> torch.Tensor:
    """For each KV head: its query heads, its key, its value."""
    queries, keys, values = (llama.heads(layer, which) for which in "qkv")
    share = HEADS // llama.kv_heads
    groups = [
        torch.cat([*queries[g * share : (g + 1) * share], keys[g], values[g]]) for g in range(llama.kv_heads)
    ]
    return torch.cat(groups)


def _layer(
    llama: TinyLlama, layer: int, names: tuple[str, ...], rank: int, ranks: int
) -> dict[str, torch.Tensor]:
    *_, qkv, proj, fc1, fc2, first_norm, second_norm = names
    gate, up = (llama.layer(layer, f"mlp.{which}_proj").chunk(ranks)[rank] for which in ("gate", "up"))
    return {
        f"{qkv}.weight": _qkv(llama, layer).chunk(ranks)[rank],
        f"{proj}.weight": llama.layer(layer, "self_attn.o_proj").chunk(ranks, 1)[rank],
        f"{fc1}.weight": torch.cat([gate, up]),
        f"{fc2}.weight": llama.layer(layer, "mlp.down_proj").chunk(ranks, 1)[rank],
        first_norm: llama.layer(layer, "input_layernorm"),
        second_norm: llama.layer(layer, "post_attention_layernorm"),
    }


def _nested(flat: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Before megatron-core: dictionaries by module, with dots only below the stack of layers."""
    nested: dict[str, Any] = {"language_model": {}}
    for name, value in flat.items():
        path, place = name.split("."), nested
        parents = 2 if "encoder" in path else len(path) - 1
        for parent in path[:parents]:
            place = place.setdefault(parent, {})
        place[".".join(path[parents:])] = value
    return nested


def _chunk(llama: TinyLlama, generation: str, layers: range, rank: int, ranks: int) -> dict[str, Any]:
    """A rank's share of consecutive layers, with what stands before the first and after the last layer."""
    names = NAMES[generation]
    embedding, output, norm, prefix = names[:4]
    part, has_copy = {}, False
    if 0 in layers:
        part[f"{embedding}.weight"] = _padded(llama["model.embed_tokens.weight"]).chunk(ranks)[rank]
    for number, layer in enumerate(layers):
        tensors = _layer(llama, layer, names, rank, ranks)
        part |= {f"{prefix}.{number}.{name}": value for name, value in tensors.items()}
    if LAYERS - 1 in layers:
        part[f"{norm}.weight"] = llama["model.norm.weight"]
        is_tied = llama.module.config.tie_word_embeddings
        has_copy = is_tied and 0 not in layers  # the last stage needs its own copy of a tied embedding
        if has_copy and generation == "legacy":
            output = "word_embeddings_for_head"
        if has_copy or not is_tied:
            part[f"{output}.weight"] = _padded(llama["lm_head.weight"]).chunk(ranks)[rank]
    part = {name: value.clone() for name, value in part.items()}
    if generation == "TransformerEngine":
        part[f"{prefix}.0.mlp.linear_fc1._extra_state"] = torch.zeros(3, dtype=torch.uint8)
    return _nested(part) if generation == "legacy" else part


def _write(
    folder: Path, llama: TinyLlama, generation: str = "TransformerEngine", *, ranks: int = 1, stages: int = 1,
    chunks: int = 1, **changes: Any,
) -> Path:  # fmt: skip
    depth = LAYERS // (stages * chunks)
    for stage, rank in itertools.product(range(stages), range(ranks)):
        state: dict[str, Any] = {"args": _args(llama, **changes), "checkpoint_version": 3.0, "iteration": 7}
        state["rng_state"] = [{"np_rng_state": np.random.default_rng(0).integers(9, size=5), "other": {1, 2}}]
        for chunk in range(chunks):
            first = (chunk * stages + stage) * depth
            part = _chunk(llama, generation, range(first, first + depth), rank, ranks)
            state["model" if chunks == 1 else f"model{chunk}"] = part
        name = f"mp_rank_{rank:02d}" + (f"_{stage:03d}" if stages > 1 else "")
        (folder / "iter_0000007" / name).mkdir(parents=True)
        torch.save(state, folder / "iter_0000007" / name / "model_optim_rng.pt")
    (folder / "latest_checkpointed_iteration.txt").write_text("7")
    return folder


@pytest.mark.parametrize("generation", list(NAMES))
@pytest.mark.parametrize(("ranks", "stages", "chunks"), [(1, 1, 1), (2, 2, 2)])
def test_files_of_ranks(tmp_path: Path, generation: str, ranks: int, stages: int, chunks: int) -> None:
    llama = TinyLlama.make()
    folder = _write(tmp_path / "in", llama, generation, ranks=ranks, stages=stages, chunks=chunks)
    assert_imported(llama, read_megatron(folder, vocab_size=VOCABULARY), folder, tmp_path)


@pytest.mark.parametrize("generation", list(NAMES))
def test_a_tied_embedding_with_one_kv_head_a_query(tmp_path: Path, generation: str) -> None:
    llama = TinyLlama.make(kv_heads=4, is_tied=True)
    folder = _write(tmp_path / "in", llama, generation, stages=2, vocab_size=VOCABULARY)
    assert_imported(llama, read_megatron(folder), folder, tmp_path)


def test_settings_that_name_classes_of_megatron(tmp_path: Path, enums: Any) -> None:
    llama = TinyLlama.make()
    kind = enums.PositionEmbeddingType.rope
    folder = _write(
        tmp_path / "in", llama, vocab_size=VOCABULARY, old=kind, use_rotary_position_embeddings=True
    )
    sys.modules.pop("megatron.model.enums")
    assert_imported(llama, read_megatron(folder), folder, tmp_path)
    assert "megatron.model.enums" not in sys.modules


def _write_dist(
    folder: Path, llama: TinyLlama, generation: str, *, stacked: bool = True, **changes: Any
) -> Path:
    """By torch's own writer, as megatron-core names the tensors; common.pt holds Megatron-LM's arguments."""
    names = NAMES[generation]
    state: dict[str, Any] = {
        "embedding.word_embeddings.weight": _padded(llama["model.embed_tokens.weight"]),
        "output_layer.weight": _padded(llama["lm_head.weight"]),
        "decoder.final_layernorm.weight": llama["model.norm.weight"],
        "optimizer.state.exp_avg.output_layer.weight": torch.zeros(PADDED, HIDDEN),
        "chained_0.optimizer.state.exp_avg.output_layer.weight": torch.zeros(PADDED, HIDDEN),
        "decoder.layers.mlp.linear_fc1._extra_state/shard_0_4": io.BytesIO(b"state"),
    }
    layers = [_layer(llama, number, names, 0, 1) for number in range(LAYERS)]
    for name in layers[0]:
        if stacked:
            state[f"decoder.layers.{name}"] = torch.stack([layer[name] for layer in layers])
        else:
            state |= {f"decoder.layers.{number}.{name}": layer[name] for number, layer in enumerate(layers)}
    dcp.save(state, checkpoint_id=folder, no_dist=True)
    torch.save({"args": _args(llama, **changes), "checkpoint_version": 3.0}, folder / "common.pt")
    (folder / "metadata.json").write_text(json.dumps({
        "sharded_backend": "torch_dist", "sharded_backend_version": 1, "common_backend": "torch",
        "common_backend_version": 1,
    }))  # fmt: skip
    return folder


@pytest.mark.parametrize("generation", ["TransformerEngine", "local"])
@pytest.mark.parametrize("stacked", [True, False])
def test_torch_dist(tmp_path: Path, generation: str, stacked: bool) -> None:
    llama = TinyLlama.make()
    folder = _write_dist(tmp_path / "in", llama, generation, stacked=stacked)
    assert_imported(llama, read_megatron(folder, vocab_size=VOCABULARY), folder, tmp_path)


def test_a_copy_that_is_not_the_embedding_is_refused(tmp_path: Path) -> None:
    folder = _write(tmp_path / "in", TinyLlama.make(is_tied=True), stages=2, vocab_size=VOCABULARY)
    file = folder / "iter_0000007/mp_rank_00_001/model_optim_rng.pt"
    state = torch.load(file, weights_only=False)
    state["model"]["output_layer.weight"][3, 3] += 1
    torch.save(state, file)
    with pytest.raises(ConversionError, match=r"output_layer\.weight differs from the embedding"):
        read_megatron(folder)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({}, r"48 rows.*add --vocab-size"),
        ({"vocab_size": 49}, "a vocabulary of 49 does not fit"),
        ({"normalization": "LayerNorm"}, "not a Llama: normalization='LayerNorm'"),
        ({"rotary_interleaved": True}, "not a Llama: rotary_interleaved=True"),
        ({"position_embedding_type": "learned_absolute"}, "positions are not rotary"),
        ({"num_layers": None}, "lack num_layers"),
        ({"vocab_size": 40, "num_layers": 5}, r"decoder\.layers\.4\..*missing"),
        ({"vocab_size": 40, "num_layers": 3}, r"not expected in a Llama model: decoder\.layers\.3\."),
        ({"vocab_size": 40, "ffn_hidden_size": 44}, r"config\.json says \(44, 32\)"),
    ],
)
def test_other_models_are_refused(tmp_path: Path, changes: dict[str, Any], complaint: str) -> None:
    folder = _write(tmp_path / "in", TinyLlama.make(), **changes)
    with pytest.raises(ConversionError, match=complaint):
        import_foreign(read_megatron(folder), folder, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    ("asked", "theirs"),
    [
        ({"use_rope_scaling": True}, {"rope_scaling": True}),
        (
            {"use_rope_scaling": True, "rope_scaling_factor": 32.0},
            {"rope_scaling": True, "rope_scaling_factor": 32.0},
        ),
        ({"rotary_seq_len_interpolation_factor": 4}, {}),
    ],
)
def test_scaled_rope_is_megatron_cores(tmp_path: Path, asked: dict[str, Any], theirs: dict[str, Any]) -> None:
    folder = _write(tmp_path / "in", TinyLlama.make(), vocab_size=VOCABULARY, rotary_base=500_000, **asked)
    found = imported_frequencies(read_megatron(folder), folder, tmp_path)
    rope = RotaryEmbedding(
        HEAD_SIZE, rotary_percent=1.0, rotary_base=500_000, use_cpu_initialization=True, **theirs
    )
    # megatron-core divides positions, transformers frequencies
    expected = rope.inv_freq / asked.get("rotary_seq_len_interpolation_factor", 1)
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found, 500_000 ** (-torch.arange(0, HEAD_SIZE, 2) / HEAD_SIZE), rtol=0.1)


def test_incomplete_and_older_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _write(tmp_path / "in", TinyLlama.make(), ranks=2, stages=2, vocab_size=VOCABULARY)
    file = folder / "iter_0000007/mp_rank_01_001/model_optim_rng.pt"
    file.rename(tmp_path / "away")
    with pytest.raises(ConversionError, match=r"mp_rank_01_001.*no such file"):
        read_megatron(folder)
    file.parent.rmdir()
    with pytest.raises(ConversionError, match="3 folders mp_rank_"):
        read_megatron(folder)
    (folder / "latest_checkpointed_iteration.txt").write_text("../x")
    assert run_verb("convert", ["from-megatron", "--input", str(folder), "--output", "out"], program="p") == 2
    assert "names '../x', which is not a checkpoint in" in capsys.readouterr().err


def test_a_hostile_file_runs_nothing(tmp_path: Path) -> None:
    hostile = Hostile(tmp_path / "trace")
    files = _write(tmp_path / "files", TinyLlama.make(), vocab_size=VOCABULARY, hook=hostile)
    with pytest.raises(ConversionError, match=r"model_optim_rng\.pt: refused.*GLOBAL"):
        read_megatron(files)
    dist = _write_dist(tmp_path / "dist", TinyLlama.make(), "local", vocab_size=VOCABULARY, hook=hostile)
    with pytest.raises(CheckpointError, match=r"common\.pt"):
        read_megatron(dist)
    assert not (tmp_path / "trace").exists()
