"""Qwen 3: each head's query and key are normalised before they are turned."""

from collections.abc import Mapping
from typing import Any

from megatron_ext.config.sections import ModelConfig
from megatron_ext.convert.decoder import (
    ATTENTION,
    LAYER_NAME,
    decoder_config,
    decoder_rules,
    decoder_section,
)
from megatron_ext.convert.rules import Family, Rename, Rule

_ABSENT = {"max_position_embeddings": 32768, "num_key_value_heads": 32, "head_dim": 128}


def rules(model: ModelConfig) -> tuple[Rule, ...]:
    """The decoder's table, and the two norms."""
    norms = (
        Rename(f"{ATTENTION}.{letter}_layernorm.weight", f"{LAYER_NAME}.self_attn.{letter}_norm.weight")
        for letter in "qk"
    )
    return (*decoder_rules(model), *norms)


def model_config(hf: Mapping[str, Any]) -> ModelConfig:
    """Our section from ``config.json``; absent keys mean what they mean to transformers."""
    return decoder_section({**_ABSENT, **hf}, qk_layernorm=True)


def hf_config(model: ModelConfig) -> dict[str, Any]:
    """``config.json`` from our section."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "attention_bias": False,
        "use_sliding_window": False,
        **decoder_config(model),
    }


QWEN3 = Family("qwen3", rules, model_config, hf_config, always=frozenset({"qk_layernorm"}))
