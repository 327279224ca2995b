"""Llama 1, 2, 3 and later, and whatever else says ``"model_type": "llama"`` and means it."""

from collections.abc import Mapping
from typing import Any

from megatron_ext.config.sections import ModelConfig
from megatron_ext.convert.decoder import decoder_config, decoder_rules, decoder_section
from megatron_ext.convert.rules import Family

_ABSENT = {"max_position_embeddings": 2048}


def model_config(hf: Mapping[str, Any]) -> ModelConfig:
    """Our section from ``config.json``; absent keys mean what they mean to transformers."""
    return decoder_section({**_ABSENT, **hf})


def hf_config(model: ModelConfig) -> dict[str, Any]:
    """``config.json`` from our section."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "mlp_bias": False,
        **decoder_config(model),
    }


LLAMA = Family("llama", decoder_rules, model_config, hf_config)
