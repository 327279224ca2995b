"""A Hugging Face folder read by slices gives what an import of it holds."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from megatron_ext.checkpoint.canonical import CanonicalReader
from megatron_ext.convert.from_hf import import_hf
from megatron_ext.convert.hf_slices import HFSlices
from megatron_ext.errors import ConversionError

QKV, GATE_UP = "decoder.layers.self_attention.linear_qkv.weight", "decoder.layers.mlp.linear_fc1.weight"


@pytest.fixture(scope="module", params=["untied", "tied"])
def folders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model of transformers, in several shards, and its import."""
    folder = tmp_path_factory.mktemp("slices")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=37, hidden_size=24, intermediate_size=20, num_hidden_layers=3, num_attention_heads=6,
        num_key_value_heads=3, head_dim=4, tie_word_embeddings=request.param == "tied",
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder / "hf", max_shard_size="10KB")
    return folder / "hf", import_hf(folder / "hf", folder / "imported")


def test_names_shapes_and_types_are_the_imports(folders: tuple[Path, Path]) -> None:
    slices, imported = HFSlices(folders[0]), CanonicalReader(folders[1])
    assert sorted(slices.keys()) == sorted(imported.keys())
    for key in imported.keys():  # noqa: SIM118 - not a dict
        assert slices.shape(key) == imported.shape(key)
        assert slices.dtype(key) == imported.dtype(key)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_box_of_any_tensor_is_the_imports(folders: tuple[Path, Path], data: st.DataObject) -> None:
    slices, imported = HFSlices(folders[0]), CanonicalReader(folders[1])
    key = data.draw(st.sampled_from([QKV, GATE_UP, *imported.keys()]))
    shape = imported.shape(key)
    offsets = [data.draw(st.integers(0, size - 1)) for size in shape]
    sizes = [data.draw(st.integers(1, size - offset)) for size, offset in zip(shape, offsets, strict=True)]
    expected = imported.read_slice(key, offsets, sizes)
    assert torch.equal(slices.read_slice(key, offsets, sizes), expected)


def test_a_part_that_is_not_owned_is_not_opened(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first half of fc1 is all gate; up stays closed, and so do other layers."""
    slices = HFSlices(folders[0])
    read: list[str] = []
    source = slices._source
    plain = source.read
    monkeypatch.setattr(source, "read", lambda name: read.append(name) or plain(name))
    slices.read_slice(GATE_UP, [1, 0, 0], [1, 20, 24])
    assert read == ["model.layers.1.mlp.gate_proj.weight"]


def test_a_folder_that_is_not_understood_is_refused_before_a_value_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="no such folder"):
        HFSlices(tmp_path / "absent")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(ConversionError, match="model_type 't5' is not supported"):
        HFSlices(tmp_path)
