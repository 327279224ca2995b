"""What is not understood is refused by name, before anything is written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from megatron_ext.checkpoint.store import CheckpointStore
from megatron_ext.cli.main import run_verb
from megatron_ext.config.sections import ModelConfig
from megatron_ext.convert.families import family_for, model_config_from_hf
from megatron_ext.convert.from_hf import import_hf
from megatron_ext.convert.llama import hf_config
from megatron_ext.convert.to_hf import export_hf
from megatron_ext.errors import ConversionError

MODEL = ModelConfig(
    num_layers=2, hidden_size=16, ffn_hidden_size=24, num_attention_heads=4, num_query_groups=2, vocab_size=32
)
# config.json of meta-llama/Llama-2-7b-hf as transformers 4 wrote it
LLAMA_2_7B = {
    "architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
    "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 11008,
    "max_position_embeddings": 4096, "model_type": "llama", "num_attention_heads": 32,
    "num_hidden_layers": 32, "num_key_value_heads": 32, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
    "rope_scaling": None, "tie_word_embeddings": False, "torch_dtype": "float16",
    "transformers_version": "4.31.0.dev0", "use_cache": True, "vocab_size": 32000,
}  # fmt: skip


@pytest.fixture
def hf(tmp_path: Path) -> Path:
    folder = tmp_path / "hf"
    folder.mkdir()
    h, f, kv = 16, 24, 8
    tensors = {"model.embed_tokens.weight": (32, h), "model.norm.weight": (h,), "lm_head.weight": (32, h)}
    for layer in range(2):
        shapes = {
            "input_layernorm": (h,), "post_attention_layernorm": (h,), "self_attn.q_proj": (h, h),
            "self_attn.k_proj": (kv, h), "self_attn.v_proj": (kv, h), "self_attn.o_proj": (h, h),
            "mlp.gate_proj": (f, h), "mlp.up_proj": (f, h), "mlp.down_proj": (h, f),
        }  # fmt: skip
        tensors |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in shapes.items()}
    save_file({name: torch.randn(shape) for name, shape in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(hf_config(MODEL)))
    return folder


def _change_tensors(hf: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(hf / "model.safetensors")
    change(tensors)
    save_file({name: value.clone() for name, value in tensors.items()}, hf / "model.safetensors")


def _set_config(hf: Path, **changes: Any) -> None:
    (hf / "config.json").write_text(json.dumps({**hf_config(MODEL), **changes}))


def _refused(hf: Path, complaint: str) -> None:
    output = hf.parent / "output"
    with pytest.raises(ConversionError, match=complaint):
        import_hf(hf, output)
    assert sorted(path.name for path in hf.parent.iterdir()) == ["hf"]


def test_llama_2_7b_as_published() -> None:
    assert model_config_from_hf(LLAMA_2_7B) == ModelConfig(
        num_layers=32, hidden_size=4096, ffn_hidden_size=11008, num_attention_heads=32, num_query_groups=32,
        vocab_size=32000, max_position_embeddings=4096, rotary_base=10000.0, layernorm_epsilon=1e-5,
    )  # fmt: skip


def test_rope_settings_of_transformers_4_and_5_mean_the_same() -> None:
    old = {**LLAMA_2_7B, "rope_theta": 500000.0}
    new = {**LLAMA_2_7B, "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}
    assert model_config_from_hf(old) == model_config_from_hf(new)
    assert model_config_from_hf(old).rotary_base == 500000.0


def test_rope_scaling_of_llama_3_1_as_published() -> None:
    scaling = {
        "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_type": "llama3",
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    model = model_config_from_hf({**LLAMA_2_7B, "rope_theta": 500000.0, "rope_scaling": scaling})
    assert model.rope_scaling is not None
    assert model.rope_scaling.model_dump(exclude_none=True) == scaling
    assert model_config_from_hf(hf_config(model)) == model
    new = {**LLAMA_2_7B, "rope_parameters": {"rope_theta": 500000.0, **scaling}}
    assert model_config_from_hf(new) == model


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "qwen3"])
def test_absent_keys_mean_what_they_mean_to_transformers(model_type: str) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    required = {key: LLAMA_2_7B[key] for key in sizes}
    ours = model_config_from_hf({"model_type": model_type, **required})
    theirs = model_config_from_hf(transformers.AutoConfig.for_model(model_type, **required).to_dict())
    assert ours.model_copy(update={"num_query_groups": ours.query_groups}) == theirs


def test_a_head_size_of_its_own_is_kept() -> None:
    model = model_config_from_hf({**LLAMA_2_7B, "head_dim": 64})
    assert (model.kv_channels, model.head_size) == (64, 64)
    assert model_config_from_hf({**LLAMA_2_7B, "head_dim": 128}).kv_channels is None


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"model_type": "gemma"}, "'gemma' is not supported; supported: llama, mistral, qwen2, qwen3"),
        ({"model_type": "qwen2", "use_sliding_window": True}, "use_sliding_window=true"),
        ({"model_type": "qwen3", "attention_bias": True}, "attention_bias=true"),
        ({"model_type": "qwen3", "layer_types": ["sliding_attention"] * 2}, "only full_attention"),
        ({"model_type": "qwen2"}, r"missing: model\.layers\.0\.self_attn\.k_proj\.bias"),
        ({"model_type": "qwen3"}, r"missing: model\.layers\.0\.self_attn\.k_norm\.weight"),
        ({"model_type": "mistral", "sliding_window": 0}, "window_size: .*not 0"),
        ({"model_type": None}, "model_type None"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_scaling of type 'dynamic'"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 8.0}}, "rope_scaling of type 'longrope'"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "llama3 lacks high_freq_factor"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0, "odd": 1}}, r"rope_scaling\.odd: Extra inputs"),
        ({"rope_scaling": {"rope_type": "linear"}}, r"rope_scaling\.factor: Field required"),
        ({"rope_theta": 5.0}, r"different values of rope_theta: \[5\.0, 10000\.0\]"),
        ({"partial_rotary_factor": 0.5}, r"partial_rotary_factor=0\.5"),
        ({"attention_bias": True}, "attention_bias=true"),
        ({"mlp_bias": True}, "mlp_bias=true"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"quantization_config": {"quant_method": "gptq"}}, r"quantization_config \(gptq\)"),
        ({"attention_bias": True, "hidden_act": "relu"}, "attention_bias=true; hidden_act='relu'"),
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"num_hidden_layers": 0}, "num_layers: .*not 0"),
        ({"num_key_value_heads": 3}, "do not divide"),
        ({"head_dim": 7}, "odd"),
    ],
)
def test_settings_that_are_not_handled_are_refused_by_name(
    hf: Path, changes: dict[str, Any], complaint: str
) -> None:
    _set_config(hf, **changes)
    _refused(hf, complaint)


def test_a_model_that_its_family_cannot_hold_is_not_exported() -> None:
    biased, windowed = ({"add_qkv_bias": True}, {"window_size": 4})
    assert family_for(MODEL, None).model_type == "llama"
    assert family_for(MODEL, {"model_type": "mistral"}).model_type == "mistral"
    assert family_for(MODEL.model_copy(update=windowed), None).model_type == "mistral"
    assert family_for(MODEL.model_copy(update=biased), None).model_type == "qwen2"
    for changes, hf_config_ in ((biased, {"model_type": "llama"}), (biased | windowed, None)):
        with pytest.raises(
            ConversionError, match=r"no such model in .*: add_qkv_bias=True, qk_layernorm=False"
        ):
            family_for(MODEL.model_copy(update=changes), hf_config_)


def test_left_over_and_missing_tensors_are_listed(hf: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["model.layers.1.mlp.up_proj.weight"]
        tensors["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(16)
        tensors["model.layers.2.input_layernorm.weight"] = torch.zeros(16)

    _change_tensors(hf, change)
    _refused(
        hf,
        r"missing: model\.layers\.1\.mlp\.up_proj\.weight; "
        r"not expected: model\.layers\.0\.self_attn\.q_proj\.bias, model\.layers\.2\.input_layernorm\.weight",
    )


def test_buffers_that_older_files_hold_are_dropped(hf: Path) -> None:
    _change_tensors(hf, lambda t: t.update({"model.layers.1.self_attn.rotary_emb.inv_freq": torch.ones(2)}))
    import_hf(hf, hf.parent / "output")
    export_hf(hf.parent / "output", hf.parent / "back")
    assert "model.layers.1.self_attn.rotary_emb.inv_freq" not in load_file(
        hf.parent / "back" / "model.safetensors"
    )


def test_tied_weights_may_be_in_the_file_if_they_agree(hf: Path) -> None:
    _set_config(hf, tie_word_embeddings=True)
    _refused(hf, r"lm_head\.weight differs from model\.embed_tokens\.weight")
    _change_tensors(hf, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    import_hf(hf, hf.parent / "output")
    export_hf(hf.parent / "output", hf.parent / "back")
    assert "lm_head.weight" not in load_file(hf.parent / "back" / "model.safetensors")


def test_shapes_are_checked_against_the_configuration(hf: Path) -> None:
    _set_config(hf, vocab_size=40)
    _refused(hf, r"model\.embed_tokens\.weight is \(32, 16\), config\.json says \(40, 16\)")


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_weights_of_other_types_are_refused(hf: Path, dtype: torch.dtype) -> None:
    _change_tensors(hf, lambda t: t.update({"model.norm.weight": torch.ones(16).to(dtype)}))
    _refused(hf, r"model\.norm\.weight is of type .*supported: F32, F16, BF16")


def test_layers_of_different_types_are_refused(hf: Path) -> None:
    name = "model.layers.1.input_layernorm.weight"
    _change_tensors(hf, lambda t: t.update({name: t[name].bfloat16()}))
    _refused(hf, r"layers\.1\.input_layernorm\.weight is torch\.bfloat16, others of its kind torch\.float32")


def test_files_that_are_missing_or_damaged_are_named(hf: Path) -> None:
    weights = hf / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    _refused(hf, r"model\.safetensors: not a complete safetensors file")
    weights.unlink()
    _refused(hf, r"no weights: neither model\.safetensors nor pytorch_model\.bin")
    index = hf / "model.safetensors.index.json"
    for content, complaint in (
        ("[]", "not an index of weight files"),
        ('{"weight_map": {"a": "../hf/model.safetensors"}}', "which is not a file of"),
        ('{"weight_map": {"a": "model-00001-of-00001.safetensors"}}', "which is not a file of"),
    ):
        index.write_text(content)
        _refused(hf, complaint)
    (hf / "config.json").write_text("[")
    _refused(hf, r"config\.json: not JSON")
    (hf / "config.json").unlink()
    _refused(hf, r"config\.json: missing")
    with pytest.raises(ConversionError, match="no such folder; download it first"):
        import_hf(hf / "absent", hf.parent / "output")


def test_an_output_in_the_way_is_only_replaced_on_request(hf: Path, tmp_path: Path) -> None:
    output, export = tmp_path / "output", tmp_path / "export"
    output.mkdir()  # an empty folder is no obstacle
    import_hf(hf, output)
    with pytest.raises(ConversionError, match="exists already"):
        import_hf(hf, output)
    import_hf(hf, output, overwrite=True)
    export_hf(output, export)
    with pytest.raises(ConversionError, match="exists already"):
        export_hf(output, export)
    export_hf(output, export, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export", "hf", "output"]


def test_overwrite_spares_what_a_conversion_did_not_make(hf: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    import_hf(hf, output)
    run = CheckpointStore(output)
    (run.root / "iter_0000000").rename(run.root / "iter_0000600")  # a run's own checkpoints
    with pytest.raises(ConversionError, match="not the output of an earlier conversion"):
        import_hf(hf, output, overwrite=True)
    with pytest.raises(ConversionError, match="not the output of an earlier conversion"):
        export_hf(output / "iter_0000600", tmp_path / "hf" / "model.safetensors", overwrite=True)
    with pytest.raises(ConversionError, match="lies inside the output"):
        import_hf(hf, tmp_path, overwrite=True)
    assert (output / "iter_0000600" / ".metadata").is_file()


def test_the_command_says_what_it_made_and_what_is_wrong(
    hf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, export = str(tmp_path / "checkpoint"), str(tmp_path / "export")
    assert run_verb("convert", ["from-hf", "--hf-path", str(hf), "--output", checkpoint]) == 0
    said = capsys.readouterr().out
    assert "iter_0000000" in said
    assert f"./launch.sh RUN.yaml checkpoint.load={checkpoint}" in said
    to_hf = ["to-hf", "--checkpoint", checkpoint, "--output", export, "--dtype", "bf16"]
    assert run_verb("convert", to_hf) == 0
    assert f"python tools/generate.py --hf-path {export}" in capsys.readouterr().out
    assert load_file(tmp_path / "export" / "model.safetensors")["lm_head.weight"].dtype == torch.bfloat16
    assert run_verb("convert", to_hf) == 2
    assert (
        capsys.readouterr().err
        == f"error: {export}: exists already; choose another output or add --overwrite\n"
    )
    assert run_verb("convert", ["to-hf", "--checkpoint", str(hf / "absent"), "--output", export]) == 2
    assert "no such folder" in capsys.readouterr().err
