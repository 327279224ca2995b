"""from-hf then to-hf is the identity, and transformers computes the same with what comes out."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from megatron_ext.checkpoint.canonical import CanonicalReader, CanonicalWriter, canonical_shapes
from megatron_ext.checkpoint.manifest import Manifest
from megatron_ext.checkpoint.store import CheckpointStore
from megatron_ext.config.sections import ModelConfig
from megatron_ext.convert.families import family_for
from megatron_ext.convert.from_hf import import_hf
from megatron_ext.convert.llama import hf_config
from megatron_ext.convert.rules import steps
from megatron_ext.convert.to_hf import export_hf
from megatron_ext.errors import ConversionError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def _transformers_names(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes as transformers has them, written down here on their own."""
    h, f = model.hidden_size, model.ffn_hidden_size
    q, kv = model.num_attention_heads * model.head_size, model.query_groups * model.head_size
    names: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (model.vocab_size, h),
        "model.norm.weight": (h,),
    }
    for layer in range(model.num_layers):
        prefix = f"model.layers.{layer}"
        names |= {
            f"{prefix}.input_layernorm.weight": (h,),
            f"{prefix}.post_attention_layernorm.weight": (h,),
            f"{prefix}.self_attn.q_proj.weight": (q, h),
            f"{prefix}.self_attn.k_proj.weight": (kv, h),
            f"{prefix}.self_attn.v_proj.weight": (kv, h),
            f"{prefix}.self_attn.o_proj.weight": (h, q),
            f"{prefix}.mlp.gate_proj.weight": (f, h),
            f"{prefix}.mlp.up_proj.weight": (f, h),
            f"{prefix}.mlp.down_proj.weight": (h, f),
        }
        if model.add_qkv_bias:
            for name, rows in (("q_proj", q), ("k_proj", kv), ("v_proj", kv)):
                names[f"{prefix}.self_attn.{name}.bias"] = (rows,)
        if model.qk_layernorm:
            names |= {
                f"{prefix}.self_attn.{name}.weight": (model.head_size,) for name in ("q_norm", "k_norm")
            }
    if model.untie_embeddings_and_output_weights:
        names["lm_head.weight"] = (model.vocab_size, h)
    return names


def _random_model(model: ModelConfig, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape, generator=generator).to(dtype)
        for name, shape in _transformers_names(model).items()
    }


def _hf_folder(folder: Path, model: ModelConfig, tensors: dict[str, torch.Tensor], **changes: Any) -> Path:
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({**family_for(model, None).hf_config(model), **changes}))
    return folder


def _load_folder(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}


def _assert_same(actual: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert actual[name].dtype == value.dtype, name
        assert torch.equal(actual[name], value), name


FEATURES: list[dict[str, Any]] = [{}, {"add_qkv_bias": True}, {"qk_layernorm": True}, {"window_size": 5}]


@st.composite
def _models(draw: st.DrawFn) -> ModelConfig:
    groups = draw(st.integers(1, 4))
    heads = groups * draw(st.integers(1, 4))
    head_size = 2 * draw(st.integers(1, 4))
    hidden = draw(st.sampled_from([heads * head_size, 24]))
    return ModelConfig(
        num_layers=draw(st.integers(1, 3)),
        hidden_size=hidden,
        ffn_hidden_size=draw(st.integers(1, 20)),
        num_attention_heads=heads,
        num_query_groups=groups,
        kv_channels=None if hidden == heads * head_size else head_size,
        vocab_size=draw(st.integers(1, 40)),
        untie_embeddings_and_output_weights=draw(st.booleans()),
        **draw(st.sampled_from(FEATURES)),
    )


@settings(max_examples=40, deadline=None)
@given(
    model=_models(), dtype=st.sampled_from(list(DTYPES)), shard_bytes=st.sampled_from([500, 5_000_000_000])
)
def test_export_of_import_is_the_same_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, model: ModelConfig, dtype: str, shard_bytes: int
) -> None:
    folder = tmp_path_factory.mktemp("roundtrip")
    tensors = _random_model(model, DTYPES[dtype])
    checkpoint = import_hf(_hf_folder(folder / "hf", model, tensors), folder / "checkpoint")
    manifest = Manifest.read(checkpoint)
    assert (manifest.model, manifest.params_dtype, manifest.has_optimizer) == (model, dtype, False)
    export_hf(folder / "checkpoint", folder / "out", max_shard_bytes=shard_bytes)
    _assert_same(_load_folder(folder / "out"), tensors)


@settings(max_examples=50, deadline=None)
@given(model=_models())
def test_the_table_covers_transformers_and_canonical_names_exactly_once(model: ModelConfig) -> None:
    plan = list(steps(family_for(model, None).rules(model), model.num_layers))
    names = [name for step in plan for name in step.hf_names]
    assert sorted(names) == sorted(_transformers_names(model))
    assert {step.rule.canonical for step in plan} == canonical_shapes(model).keys()
    shapes = canonical_shapes(model)
    for step in plan:
        shape = shapes[step.rule.canonical][step.layer is not None :]
        parts = [torch.zeros(part) for part in step.rule.hf_shapes(shape, model)]
        assert [tuple(part.shape) for part in parts] == [
            _transformers_names(model)[name] for name in step.hf_names
        ]
        assert tuple(step.rule.fuse(parts, model).shape) == shape


GROUPED = ModelConfig(
    num_layers=2, hidden_size=32, ffn_hidden_size=48, num_attention_heads=4, num_query_groups=2,
    vocab_size=64, max_position_embeddings=32, rotary_base=5000.0, layernorm_epsilon=1e-6,
)  # fmt: skip


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("is_tied", [False, True])
def test_transformers_computes_the_same_after_a_round_trip(
    tmp_path: Path, groups: int, is_tied: bool
) -> None:
    transformers = pytest.importorskip("transformers")
    changes = {"num_query_groups": groups, "untie_embeddings_and_output_weights": not is_tied}
    config = transformers.AutoConfig.for_model(**hf_config(GROUPED.model_copy(update=changes)))
    before = transformers.LlamaForCausalLM(config).eval()
    before.save_pretrained(tmp_path / "hf")
    import_hf(tmp_path / "hf", tmp_path / "checkpoint")
    export_hf(tmp_path / "checkpoint", tmp_path / "out")
    after = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    _assert_same(after.state_dict(), before.state_dict())
    tokens = torch.randint(0, 64, (2, 20))
    with torch.no_grad():
        assert torch.equal(after(tokens).logits, before(tokens).logits)
    assert (after.lm_head.weight is after.model.embed_tokens.weight) == is_tied


def test_files_are_named_like_hugging_face_and_the_index_is_right(tmp_path: Path) -> None:
    import_hf(_hf_folder(tmp_path / "hf", GROUPED, _random_model(GROUPED)), tmp_path / "checkpoint")
    export_hf(tmp_path / "checkpoint", tmp_path / "one")
    assert [path.name for path in (tmp_path / "one").glob("*safetensors*")] == ["model.safetensors"]
    export_hf(tmp_path / "checkpoint", tmp_path / "many", max_shard_bytes=20_000)
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in (tmp_path / "many").glob("*.safetensors"))
    assert files == [f"model-{i:05d}-of-{len(files):05d}.safetensors" for i in range(1, len(files) + 1)]
    assert len(files) > 2
    tensors = _random_model(GROUPED)
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in tensors.values())
    assert index["weight_map"].keys() == tensors.keys()
    for name, file in index["weight_map"].items():
        with safe_open(tmp_path / "many" / file, framework="pt") as stream:
            assert torch.equal(stream.get_tensor(name), tensors[name])
            assert stream.metadata() == {"format": "pt"}
    import_hf(tmp_path / "many", tmp_path / "again")  # sharded input is read, too
    assert torch.equal(
        CanonicalReader(CheckpointStore.resolve(tmp_path / "again")).read("output_layer.weight"),
        tensors["lm_head.weight"],
    )


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_export_converts_the_dtype(tmp_path: Path, dtype: str) -> None:
    tensors = _random_model(GROUPED)
    import_hf(_hf_folder(tmp_path / "hf", GROUPED, tensors), tmp_path / "checkpoint")
    export_hf(tmp_path / "checkpoint", tmp_path / "out", dtype=dtype)
    _assert_same(
        _load_folder(tmp_path / "out"), {name: value.to(DTYPES[dtype]) for name, value in tensors.items()}
    )
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    name = str(DTYPES[dtype]).removeprefix("torch.")
    assert (config["torch_dtype"], config["dtype"]) == (name, name)


def test_a_value_beyond_fp16_is_not_made_infinite(tmp_path: Path) -> None:
    tensors = _random_model(GROUPED)
    tensors["model.norm.weight"][3] = 1e6
    import_hf(_hf_folder(tmp_path / "hf", GROUPED, tensors), tmp_path / "checkpoint")
    with pytest.raises(ConversionError, match=r"model\.norm\.weight holds values too large for fp16"):
        export_hf(tmp_path / "checkpoint", tmp_path / "out", dtype="fp16")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "hf"]


def _training_checkpoint(folder: Path, padded_rows: int) -> dict[str, torch.Tensor]:
    """As a run writes it: vocabulary rows padded, optimizer state beside the weights, no hf folder."""
    generator = torch.Generator().manual_seed(3)
    shapes = canonical_shapes(GROUPED)
    for key in ("embedding.word_embeddings.weight", "output_layer.weight"):
        shapes[key] = (padded_rows, GROUPED.hidden_size)
    values = {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    state = {f"optimizer.state.exp_avg.{key}": value for key, value in values.items()}
    store = CheckpointStore(folder)
    temporary = store.begin(12)
    with CanonicalWriter(temporary, {key: value.shape for key, value in (values | state).items()}) as writer:
        for key, value in (values | state).items():
            writer.add(key, value)
    Manifest(
        model=GROUPED,
        iteration=12,
        consumed_samples=96,
        consumed_tokens=960,
        has_optimizer=True,
        params_dtype="fp32",
    ).write(temporary)
    store.commit(temporary, 12)
    return values


def test_a_training_checkpoint_exports_without_optimizer_padding_or_assets(tmp_path: Path) -> None:
    values = _training_checkpoint(tmp_path / "run", padded_rows=72)
    export_hf(tmp_path / "run", tmp_path / "out")
    exported = _load_folder(tmp_path / "out")
    assert {name: tuple(value.shape) for name, value in exported.items()} == _transformers_names(GROUPED)
    assert torch.equal(exported["lm_head.weight"], values["output_layer.weight"][:64])
    fused = values["decoder.layers.self_attention.linear_qkv.weight"][1]  # head size 8, 2 queries per KV head
    assert torch.equal(
        exported["model.layers.1.self_attn.q_proj.weight"], torch.cat([fused[0:16], fused[32:48]])
    )
    assert torch.equal(
        exported["model.layers.1.self_attn.k_proj.weight"], torch.cat([fused[16:24], fused[48:56]])
    )
    assert torch.equal(
        exported["model.layers.1.self_attn.v_proj.weight"], torch.cat([fused[24:32], fused[56:64]])
    )
    gate_up = values["decoder.layers.mlp.linear_fc1.weight"][0]
    assert torch.equal(exported["model.layers.0.mlp.up_proj.weight"], gate_up[48:])
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config == {**hf_config(GROUPED), "torch_dtype": "float32", "dtype": "float32"}


def test_a_checkpoint_of_another_model_is_not_exported(tmp_path: Path) -> None:
    _training_checkpoint(tmp_path / "run", padded_rows=40)  # fewer rows than the vocabulary
    folder = CheckpointStore.resolve(tmp_path / "run")
    with pytest.raises(ConversionError, match=r"output_layer\.weight is \(40, 32\).*says \(64, 32\)"):
        export_hf(folder, tmp_path / "out")
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"untie_embeddings_and_output_weights": true',
                                             '"untie_embeddings_and_output_weights": false'))  # fmt: skip
    with pytest.raises(ConversionError, match=r"output_layer\.weight is not expected"):
        export_hf(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tokenizer_and_configuration_are_carried_through(tmp_path: Path) -> None:
    hf = _hf_folder(
        tmp_path / "hf", GROUPED, _random_model(GROUPED), bos_token_id=1, eos_token_id=2, custom="kept"
    )
    files = {
        "tokenizer.model": b"\x00model",
        "tokenizer_config.json": b"{}",
        "generation_config.json": b'{"a": 1}',
    }
    for name, content in files.items():
        (hf / name).write_bytes(content)
    (hf / "modeling_evil.py").write_text("raise SystemExit")
    import_hf(hf, tmp_path / "checkpoint")
    export_hf(tmp_path / "checkpoint", tmp_path / "out")
    for name, content in files.items():
        assert (tmp_path / "out" / name).read_bytes() == content
    assert not (tmp_path / "out" / "modeling_evil.py").exists()
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["bos_token_id"], config["custom"]) == (1, "kept")
