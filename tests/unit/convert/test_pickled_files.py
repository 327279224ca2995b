"""pytorch_model*.bin gives the checkpoint that the same weights in safetensors give, and runs no code."""

import json
import os
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from megatron_ext.config.sections import ModelConfig
from megatron_ext.convert.from_hf import import_hf
from megatron_ext.convert.llama import LLAMA, hf_config
from megatron_ext.convert.to_hf import export_hf
from megatron_ext.errors import ConversionError

MODEL = ModelConfig(
    num_layers=2, hidden_size=16, ffn_hidden_size=24, num_attention_heads=4, num_query_groups=2, vocab_size=32
)


def _weights() -> dict[str, torch.Tensor]:
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model(**LLAMA.hf_config(MODEL))
    return {
        name: value.bfloat16() for name, value in transformers.LlamaForCausalLM(config).state_dict().items()
    }


@pytest.fixture
def hf(tmp_path: Path) -> Path:
    folder = tmp_path / "hf"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(hf_config(MODEL)))
    return folder


def _exported(hf: Path) -> dict[str, torch.Tensor]:
    import_hf(hf, hf.parent / "checkpoint")
    export_hf(hf.parent / "checkpoint", hf.parent / "out")
    return load_file(hf.parent / "out" / "model.safetensors")


def _assert_same(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert actual[name].dtype == value.dtype
        assert torch.equal(actual[name], value), name


def test_one_file(hf: Path) -> None:
    weights = _weights()
    torch.save(weights, hf / "pytorch_model.bin")
    _assert_same(_exported(hf), weights)


def test_several_files_with_an_index(hf: Path) -> None:
    weights = _weights()
    names = sorted(weights)
    weight_map = {name: f"pytorch_model-0000{1 + i % 2}-of-00002.bin" for i, name in enumerate(names)}
    for file in set(weight_map.values()):
        torch.save({name: weights[name] for name in names if weight_map[name] == file}, hf / file)
    (hf / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    _assert_same(_exported(hf), weights)


def test_safetensors_are_preferred(hf: Path) -> None:
    weights = _weights()
    save_file(weights, hf / "model.safetensors")
    (hf / "pytorch_model.bin").write_bytes(b"not looked at")
    _assert_same(_exported(hf), weights)


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("evil",)


def test_a_pickle_that_would_run_code_is_refused(hf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(hf)
    torch.save({**_weights(), "model.norm.weight": _Evil()}, hf / "pytorch_model.bin")
    with pytest.raises(ConversionError, match=r"pytorch_model\.bin: refused, .*made to run code"):
        import_hf(hf, hf.parent / "checkpoint")
    assert sorted(path.name for path in hf.iterdir()) == ["config.json", "pytorch_model.bin"]


def test_files_that_are_damaged_old_or_no_weights_are_named(hf: Path) -> None:
    path = hf / "pytorch_model.bin"
    torch.save(_weights(), path)
    whole = path.read_bytes()
    torch.save(_weights(), path, _use_new_zipfile_serialization=False)
    old = path.read_bytes()
    for content in (b"", b"PK", whole[: len(whole) // 2], old):
        path.write_bytes(content)
        with pytest.raises(ConversionError, match=r"pytorch_model\.bin: (damaged|refused)"):
            import_hf(hf, hf.parent / "checkpoint")
    for other in ([torch.ones(1)], {"model": {"w": torch.ones(1)}}):
        torch.save(other, path)
        with pytest.raises(ConversionError, match="not a table of tensors by name"):
            import_hf(hf, hf.parent / "checkpoint")
    torch.save({**_weights(), "model.norm.weight": torch.ones(16, dtype=torch.int8)}, path)
    with pytest.raises(ConversionError, match=r"model\.norm\.weight is of type torch\.int8; supported"):
        import_hf(hf, hf.parent / "checkpoint")
    assert [entry.name for entry in hf.parent.iterdir()] == ["hf"]


def test_a_tensor_that_claims_more_than_the_file_holds_is_refused(hf: Path) -> None:
    path = hf / "pytorch_model.bin"
    torch.save({"w": torch.ones(1000)}, path)
    with zipfile.ZipFile(path) as honest:
        members = {info.filename: honest.read(info) for info in honest.infolist()}
    thousand, more = b"M\xe8\x03", b"M\xff\xff"  # the pickle's 16-bit integers
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as forged:
        for name, content in members.items():
            forged.writestr(name, content.replace(thousand, more) if name.endswith("data.pkl") else content)
    with pytest.raises(ConversionError, match=r"pytorch_model\.bin: damaged"):
        import_hf(hf, hf.parent / "checkpoint")
