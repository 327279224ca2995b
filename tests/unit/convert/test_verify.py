"""--verify finds what was changed behind the conversion's back, to the last bit."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from megatron_ext.checkpoint.manifest import DtypeName
from megatron_ext.config.sections import ModelConfig
from megatron_ext.convert.from_hf import import_hf
from megatron_ext.convert.llama import hf_config
from megatron_ext.convert.to_hf import export_hf
from megatron_ext.convert.verify import Compared, compare_tensors
from megatron_ext.errors import ConversionError

MODEL = ModelConfig(num_layers=2, hidden_size=16, ffn_hidden_size=24, num_attention_heads=4, vocab_size=32)
SHAPES = {
    "input_layernorm": (16,), "post_attention_layernorm": (16,), "self_attn.q_proj": (16, 16),
    "self_attn.k_proj": (16, 16), "self_attn.v_proj": (16, 16), "self_attn.o_proj": (16, 16),
    "mlp.gate_proj": (24, 16), "mlp.up_proj": (24, 16), "mlp.down_proj": (16, 24),
}  # fmt: skip
VALUES = 2 * 32 * 16 + 16 + 2 * (2 * 16 + 4 * 16 * 16 + 3 * 24 * 16)
NAN = 0x7FC00000


@pytest.fixture
def hf(tmp_path: Path) -> Path:
    generator = torch.Generator().manual_seed(2)
    shapes = {"model.embed_tokens.weight": (32, 16), "model.norm.weight": (16,), "lm_head.weight": (32, 16)}
    for layer, (name, shape) in itertools.product(range(2), SHAPES.items()):
        shapes[f"model.layers.{layer}.{name}.weight"] = shape
    weights = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    # NaN is unequal to itself, and still the same bits.
    weights["model.norm.weight"].view(torch.int32)[3] = NAN
    folder = tmp_path / "hf"
    folder.mkdir()
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(hf_config(MODEL)))
    return folder


def _change(folder: Path, name: str, element: int, bits: int) -> None:
    weights = load_file(folder / "model.safetensors")
    weights[name].view(torch.int32).flatten()[element] ^= bits
    save_file(weights, folder / "model.safetensors")


def test_both_directions_say_what_was_compared(hf: Path, tmp_path: Path) -> None:
    import_hf(hf, tmp_path / "checkpoint")
    assert compare_tensors(hf, tmp_path / "checkpoint", "checkpoint") == Compared(21, 4 * VALUES, 0, ())
    export_hf(tmp_path / "checkpoint", tmp_path / "out")
    assert compare_tensors(tmp_path / "out", tmp_path / "checkpoint", "hf") == Compared(21, 4 * VALUES, 0, ())


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_a_rounded_conversion_is_compared_with_its_source_rounded(
    hf: Path, tmp_path: Path, dtype: DtypeName
) -> None:
    import_hf(hf, tmp_path / "rounded", dtype=dtype)
    assert compare_tensors(hf, tmp_path / "rounded", "checkpoint") == Compared(21, 2 * VALUES, 21, ())
    import_hf(hf, tmp_path / "exact")
    export_hf(tmp_path / "exact", tmp_path / "out", dtype=dtype)
    assert compare_tensors(tmp_path / "out", tmp_path / "exact", "hf") == Compared(21, 2 * VALUES, 21, ())
    with pytest.raises(ConversionError, match="not right"):  # the other way round, rounding is a difference
        compare_tensors(tmp_path / "out", tmp_path / "exact", "checkpoint")


@pytest.mark.parametrize(
    ("name", "element", "bits"),
    [
        ("model.layers.1.self_attn.k_proj.weight", 17, 1),  # the last bit of a value
        ("model.norm.weight", 3, 1),  # NaN with another payload
        ("lm_head.weight", 32 * 16 - 1, -(2**31)),  # the sign
    ],
)
def test_one_bit_is_found_and_named(hf: Path, tmp_path: Path, name: str, element: int, bits: int) -> None:
    import_hf(hf, tmp_path / "checkpoint")
    _change(hf, name, element, bits)
    with pytest.raises(ConversionError, match=f"do not use it: {name} differs between [^;]*$"):
        compare_tensors(hf, tmp_path / "checkpoint", "checkpoint")


def test_tensors_of_one_side_only_are_named(hf: Path, tmp_path: Path) -> None:
    import_hf(hf, tmp_path / "checkpoint")
    weights = load_file(hf / "model.safetensors")
    weights["other"] = weights.pop("model.norm.weight")
    save_file(weights, hf / "model.safetensors")
    with pytest.raises(ConversionError, match=r"model\.norm\.weight is only in .*; other is only in .*hf$"):
        compare_tensors(hf, tmp_path / "checkpoint", "checkpoint")


def test_tied_and_computed_tensors_of_the_folder(hf: Path, tmp_path: Path) -> None:
    weights = load_file(hf / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(2)
    save_file(weights, hf / "model.safetensors")
    (hf / "config.json").write_text(json.dumps({**hf_config(MODEL), "tie_word_embeddings": True}))
    import_hf(hf, tmp_path / "checkpoint")
    left_out = ("model.layers.0.self_attn.rotary_emb.inv_freq",)
    assert compare_tensors(hf, tmp_path / "checkpoint", "checkpoint") == Compared(21, 4 * VALUES, 0, left_out)
    _change(hf, "lm_head.weight", 0, 1)
    with pytest.raises(ConversionError, match=r"lm_head\.weight differs"):
        compare_tensors(hf, tmp_path / "checkpoint", "checkpoint")
