"""The dtype option of both directions rounds each weight once, as torch does."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from megatron_ext.checkpoint.manifest import DtypeName, Manifest
from megatron_ext.cli.main import run_verb
from megatron_ext.config.sections import ModelConfig
from megatron_ext.convert.from_hf import import_hf
from megatron_ext.convert.hf_slices import HFSlices
from megatron_ext.convert.llama import hf_config
from megatron_ext.convert.to_hf import export_hf
from megatron_ext.errors import ConversionError

TORCH: dict[DtypeName, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MODEL = ModelConfig(num_layers=2, hidden_size=16, ffn_hidden_size=24, num_attention_heads=4, vocab_size=32)
SHAPES = {
    "input_layernorm": (16,), "post_attention_layernorm": (16,), "self_attn.q_proj": (16, 16),
    "self_attn.k_proj": (16, 16), "self_attn.v_proj": (16, 16), "self_attn.o_proj": (16, 16),
    "mlp.gate_proj": (24, 16), "mlp.up_proj": (24, 16), "mlp.down_proj": (16, 24),
}  # fmt: skip


def _weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = {"model.embed_tokens.weight": (32, 16), "model.norm.weight": (16,), "lm_head.weight": (32, 16)}
    for layer, (name, shape) in itertools.product(range(2), SHAPES.items()):
        shapes[f"model.layers.{layer}.{name}.weight"] = shape
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def _folder(folder: Path, weights: dict[str, torch.Tensor]) -> Path:
    folder.mkdir()
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(hf_config(MODEL)))
    return folder


@pytest.mark.parametrize(("stored", "wanted"), list(itertools.product(TORCH, TORCH)))
def test_import_converts(tmp_path: Path, stored: DtypeName, wanted: DtypeName) -> None:
    weights = {name: value.to(TORCH[stored]) for name, value in _weights().items()}
    checkpoint = import_hf(_folder(tmp_path / "hf", weights), tmp_path / "checkpoint", dtype=wanted)
    assert Manifest.read(checkpoint).params_dtype == wanted
    export_hf(checkpoint, tmp_path / "out")
    exported = load_file(tmp_path / "out" / "model.safetensors")
    for name, value in weights.items():
        assert exported[name].dtype == TORCH[wanted]
        assert torch.equal(exported[name], value.to(TORCH[wanted])), name
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["dtype"] == str(TORCH[wanted]).removeprefix("torch.")


def test_a_dtype_makes_mixed_weights_one(tmp_path: Path) -> None:
    weights = _weights()
    for name in weights:  # the parts of one fused tensor differ, and so do the layers of one stacked tensor
        if "q_proj" in name or "layers.1" in name:
            weights[name] = weights[name].bfloat16()
    hf = _folder(tmp_path / "hf", weights)
    with pytest.raises(
        ConversionError, match=r"others of its kind .*; to make them alike, convert with --dtype"
    ):
        import_hf(hf, tmp_path / "checkpoint")
    with pytest.raises(ConversionError, match="convert with --dtype"):
        HFSlices(hf)
    import_hf(hf, tmp_path / "checkpoint", dtype="fp32")
    export_hf(tmp_path / "checkpoint", tmp_path / "out")
    exported = load_file(tmp_path / "out" / "model.safetensors")
    for name, value in weights.items():
        assert torch.equal(exported[name], value.float()), name


def test_a_value_beyond_fp16_is_not_made_infinite_on_import(tmp_path: Path) -> None:
    weights = _weights()
    weights["model.layers.1.self_attn.k_proj.weight"][3] = 1e6
    weights["model.norm.weight"][0] = torch.inf  # was infinite before: not our doing
    hf = _folder(tmp_path / "hf", weights)
    with pytest.raises(ConversionError, match=r"layers\.1\.self_attn\.k_proj\.weight .* too large for fp16"):
        import_hf(hf, tmp_path / "checkpoint", dtype="fp16")
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_the_option_of_both_commands(tmp_path: Path) -> None:
    hf = _folder(tmp_path / "hf", _weights())
    checkpoint, out = tmp_path / "checkpoint", tmp_path / "out"
    into = ["from-hf", "--hf-path", str(hf), "--output", str(checkpoint), "--dtype", "bf16"]
    assert run_verb("convert", into) == 0
    assert run_verb("convert", ["to-hf", "--checkpoint", str(checkpoint), "--output", str(out)]) == 0
    kept = load_file(out / "model.safetensors")
    assert {value.dtype for value in kept.values()} == {torch.bfloat16}
    wide = ["to-hf", "--checkpoint", str(checkpoint), "--output", str(out), "--dtype", "fp32", "--overwrite"]
    assert run_verb("convert", wide) == 0
    for name, value in load_file(out / "model.safetensors").items():
        assert torch.equal(value, kept[name].float()), name
