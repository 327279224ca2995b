"""Llama 1, 2 and 3 without rope scaling, and whatever else says ``"model_type": "llama"`` and means it."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from megatron_ext.config.sections import ModelConfig
from megatron_ext.convert.rules import Drop, Family, FuseGateUp, FuseQKV, Rename, Rule, Tied
from megatron_ext.errors import ConversionError

_REQUIRED = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


def rules(model: ModelConfig) -> tuple[Rule, ...]:
    """The table: canonical name, then Hugging Face names."""
    layer, attention, mlp = "model.layers.{layer}", "decoder.layers.self_attention", "decoder.layers.mlp"
    q, k, v = (f"{layer}.self_attn.{name}_proj.weight" for name in "qkv")
    head: Rule = Tied("lm_head.weight", same_as="model.embed_tokens.weight")
    if model.untie_embeddings_and_output_weights:
        head = Rename("output_layer.weight", "lm_head.weight")
    return (
        Rename("embedding.word_embeddings.weight", "model.embed_tokens.weight"),
        Rename(f"{attention}.linear_qkv.layer_norm_weight", f"{layer}.input_layernorm.weight"),
        FuseQKV(f"{attention}.linear_qkv.weight", q, k, v),
        Rename(f"{attention}.linear_proj.weight", f"{layer}.self_attn.o_proj.weight"),
        Rename(f"{mlp}.linear_fc1.layer_norm_weight", f"{layer}.post_attention_layernorm.weight"),
        FuseGateUp(
            f"{mlp}.linear_fc1.weight", f"{layer}.mlp.gate_proj.weight", f"{layer}.mlp.up_proj.weight"
        ),
        Rename(f"{mlp}.linear_fc2.weight", f"{layer}.mlp.down_proj.weight"),
        Rename("decoder.final_layernorm.weight", "model.norm.weight"),
        head,
        Drop(f"{layer}.self_attn.rotary_emb.inv_freq"),
    )


def model_config(hf: Mapping[str, Any]) -> ModelConfig:
    """Our section from ``config.json``; absent keys mean what they mean to transformers."""
    missing = [key for key in _REQUIRED if hf.get(key) is None]
    if missing:
        raise ConversionError(f"config.json lacks {', '.join(missing)}")
    problems = _unsupported(hf)
    if problems:
        raise ConversionError("config.json asks for what is not supported: " + "; ".join(problems))
    try:
        model = ModelConfig(
            num_layers=hf["num_hidden_layers"],
            hidden_size=hf["hidden_size"],
            ffn_hidden_size=hf["intermediate_size"],
            num_attention_heads=hf["num_attention_heads"],
            num_query_groups=hf.get("num_key_value_heads"),
            kv_channels=hf.get("head_dim"),
            vocab_size=hf["vocab_size"],
            max_position_embeddings=hf.get("max_position_embeddings", 2048),
            rotary_base=next(iter(_rope(hf)["rope_theta"]), 10000.0),
            layernorm_epsilon=hf.get("rms_norm_eps", 1e-6),
            untie_embeddings_and_output_weights=not hf.get("tie_word_embeddings", False),
            init_method_std=hf.get("initializer_range", 0.02),
        )
    except ValidationError as error:
        listed = "; ".join(f"{e['loc'][0]}: {e['msg']}, not {e['input']!r}" for e in error.errors())
        raise ConversionError(f"config.json: {listed}") from error
    if model.num_attention_heads % model.query_groups or model.head_size % 2:
        raise ConversionError(
            f"config.json: {model.num_attention_heads} heads of size {model.head_size} do not divide into "
            f"{model.query_groups} KV heads, or their size is odd"
        )
    # A head size that follows from the others is left out, so that model.yaml says only what matters.
    follows = model.head_size * model.num_attention_heads == model.hidden_size
    return model.model_copy(update={"kv_channels": None}) if follows else model


def hf_config(model: ModelConfig) -> dict[str, Any]:
    """``config.json`` as transformers from 4.50 to 5 reads it: rope settings stand under both names."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "head_dim": model.head_size,
        "hidden_act": "silu",
        "hidden_size": model.hidden_size,
        "initializer_range": model.init_method_std,
        "intermediate_size": model.ffn_hidden_size,
        "max_position_embeddings": model.max_position_embeddings,
        "mlp_bias": False,
        "num_attention_heads": model.num_attention_heads,
        "num_hidden_layers": model.num_layers,
        "num_key_value_heads": model.query_groups,
        "rms_norm_eps": model.layernorm_epsilon,
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rotary_base},
        "rope_scaling": None,
        "rope_theta": model.rotary_base,
        "tie_word_embeddings": not model.untie_embeddings_and_output_weights,
        "vocab_size": model.vocab_size,
    }


def _rope(hf: Mapping[str, Any]) -> dict[str, set[Any]]:
    """Rope settings with every value given: transformers 5 keeps them in one place, 4 in two others."""
    values: dict[str, set[Any]] = {"rope_theta": set(), "partial_rotary_factor": set(), "rope_type": set()}
    for place in (hf, hf.get("rope_scaling") or {}, hf.get("rope_parameters") or {}):
        for key, found in values.items():
            found.add(place.get(key))
        values["rope_type"].add(place.get("type"))
    return {key: found - {None} for key, found in values.items()}


def _unsupported(hf: Mapping[str, Any]) -> list[str]:
    found = [f"{key}=true" for key in ("attention_bias", "mlp_bias") if hf.get(key)]
    if hf.get("hidden_act", "silu") != "silu":
        found.append(f"hidden_act={hf['hidden_act']!r} (only silu)")
    if hf.get("quantization_config") is not None:
        method = dict(hf["quantization_config"]).get("quant_method", "unknown")
        found.append(f"quantization_config ({method}); dequantise the weights first")
    rope = _rope(hf)
    found += [f"rope_scaling of type {name!r}" for name in sorted(rope["rope_type"] - {"default"})]
    found += [f"partial_rotary_factor={factor}" for factor in rope["partial_rotary_factor"] - {1.0}]
    if len(rope["rope_theta"]) > 1:
        found.append(f"different values of rope_theta: {sorted(rope['rope_theta'])}")
    return found


LLAMA = Family("llama", rules, model_config, hf_config)
