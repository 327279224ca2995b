"""Qwen 2 and 2.5: the projection of queries, keys and values has a bias."""

from collections.abc import Mapping
from typing import Any

from megatron_ext.config.sections import ModelConfig
from megatron_ext.convert.decoder import decoder_config, decoder_rules, decoder_section, fuse_qkv
from megatron_ext.convert.rules import Family, Rule

_ABSENT = {"max_position_embeddings": 32768, "num_key_value_heads": 32}


def rules(model: ModelConfig) -> tuple[Rule, ...]:
    """The decoder's table, and the bias."""
    return (*decoder_rules(model), fuse_qkv("bias"))


def model_config(hf: Mapping[str, Any]) -> ModelConfig:
    """Our section from ``config.json``; absent keys mean what they mean to transformers."""
    return decoder_section({**_ABSENT, **hf}, add_qkv_bias=True)


def hf_config(model: ModelConfig) -> dict[str, Any]:
    """``config.json`` from our section."""
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "use_sliding_window": False,
        **decoder_config(model),
    }


QWEN2 = Family("qwen2", rules, model_config, hf_config, always=frozenset({"add_qkv_bias"}))
