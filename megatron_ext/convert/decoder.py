"""What the families share: one decoder with RMSNorm, RoPE and SwiGLU, in Hugging Face's names."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from megatron_ext.config.sections import ModelConfig
from megatron_ext.convert.rope import rope_config, rope_problems, rope_section
from megatron_ext.convert.rules import Drop, FuseGateUp, FuseQKV, Rename, Rule, Tied
from megatron_ext.errors import ConversionError

LAYER_NAME = "model.layers.{layer}"
ATTENTION = "decoder.layers.self_attention"
_MLP = "decoder.layers.mlp"
_REQUIRED = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


def decoder_rules(model: ModelConfig) -> tuple[Rule, ...]:
    """The table: canonical name, then Hugging Face names."""
    layer = LAYER_NAME
    head: Rule = Tied("lm_head.weight", same_as="model.embed_tokens.weight")
    if model.untie_embeddings_and_output_weights:
        head = Rename("output_layer.weight", "lm_head.weight")
    return (
        Rename("embedding.word_embeddings.weight", "model.embed_tokens.weight"),
        Rename(f"{ATTENTION}.linear_qkv.layer_norm_weight", f"{layer}.input_layernorm.weight"),
        fuse_qkv("weight"),
        Rename(f"{ATTENTION}.linear_proj.weight", f"{layer}.self_attn.o_proj.weight"),
        Rename(f"{_MLP}.linear_fc1.layer_norm_weight", f"{layer}.post_attention_layernorm.weight"),
        FuseGateUp(
            f"{_MLP}.linear_fc1.weight", f"{layer}.mlp.gate_proj.weight", f"{layer}.mlp.up_proj.weight"
        ),
        Rename(f"{_MLP}.linear_fc2.weight", f"{layer}.mlp.down_proj.weight"),
        Rename("decoder.final_layernorm.weight", "model.norm.weight"),
        head,
        Drop(f"{layer}.self_attn.rotary_emb.inv_freq"),
    )


def fuse_qkv(kind: str) -> FuseQKV:
    """The rule for the projection's ``weight``, or for its ``bias``."""
    query, key, value = (f"{LAYER_NAME}.self_attn.{name}_proj.{kind}" for name in "qkv")
    return FuseQKV(f"{ATTENTION}.linear_qkv.{kind}", query, key, value)


def decoder_section(hf: Mapping[str, Any], **features: Any) -> ModelConfig:
    """Our section from ``config.json``.

    Args:
        hf: its content, over what absent keys mean to the family.
        features: keys of our section that only this family has.

    Raises:
        ConversionError: something is missing, wrong or not supported; names each one.
    """
    missing = [key for key in _REQUIRED if hf.get(key) is None]
    if missing:
        raise ConversionError(f"config.json lacks {', '.join(missing)}")
    problems = _unsupported(hf)
    if problems:
        raise ConversionError("config.json asks for what is not supported: " + "; ".join(problems))
    try:
        section = {
            "num_layers": hf["num_hidden_layers"],
            "hidden_size": hf["hidden_size"],
            "ffn_hidden_size": hf["intermediate_size"],
            "num_attention_heads": hf["num_attention_heads"],
            "num_query_groups": hf.get("num_key_value_heads"),
            "kv_channels": hf.get("head_dim"),
            "vocab_size": hf["vocab_size"],
            "max_position_embeddings": hf["max_position_embeddings"],
            "layernorm_epsilon": hf.get("rms_norm_eps", 1e-6),
            "untie_embeddings_and_output_weights": not hf.get("tie_word_embeddings", False),
            "init_method_std": hf.get("initializer_range", 0.02),
            **rope_section(hf),
            **features,
        }
        model = ModelConfig.model_validate(section)
    except ValidationError as error:
        listed = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}, not {e['input']!r}" for e in error.errors())
        raise ConversionError(f"config.json: {'; '.join(listed)}") from error
    if model.num_attention_heads % model.query_groups or model.head_size % 2:
        raise ConversionError(
            f"config.json: {model.num_attention_heads} heads of size {model.head_size} do not divide into "
            f"{model.query_groups} KV heads, or their size is odd"
        )
    # A head size that follows from the others is left out, so that model.yaml says only what matters.
    follows = model.head_size * model.num_attention_heads == model.hidden_size
    return model.model_copy(update={"kv_channels": None}) if follows else model


def decoder_config(model: ModelConfig) -> dict[str, Any]:
    """``config.json`` as transformers from 4.50 to 5 reads it, without what names the family."""
    return {
        "head_dim": model.head_size,
        "hidden_act": "silu",
        "hidden_size": model.hidden_size,
        "initializer_range": model.init_method_std,
        "intermediate_size": model.ffn_hidden_size,
        "max_position_embeddings": model.max_position_embeddings,
        "num_attention_heads": model.num_attention_heads,
        "num_hidden_layers": model.num_layers,
        "num_key_value_heads": model.query_groups,
        "rms_norm_eps": model.layernorm_epsilon,
        "tie_word_embeddings": not model.untie_embeddings_and_output_weights,
        "vocab_size": model.vocab_size,
        **rope_config(model),
    }


def _unsupported(hf: Mapping[str, Any]) -> list[str]:
    found = [f"{key}=true" for key in ("attention_bias", "mlp_bias", "use_sliding_window") if hf.get(key)]
    if set(hf.get("layer_types") or ()) - {"full_attention"}:
        found.append(f"layer_types={sorted(set(hf['layer_types']))} (only full_attention)")
    if hf.get("hidden_act", "silu") != "silu":
        found.append(f"hidden_act={hf['hidden_act']!r} (only silu)")
    if hf.get("quantization_config") is not None:
        method = dict(hf["quantization_config"]).get("quant_method", "unknown")
        found.append(f"quantization_config ({method}); dequantise the weights first")
    return found + rope_problems(hf)
