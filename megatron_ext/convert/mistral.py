"""Mistral: attention looks back a limited number of tokens in version 0.1, over all of them in later ones."""

from collections.abc import Mapping
from typing import Any

from megatron_ext.config.sections import ModelConfig
from megatron_ext.convert.decoder import decoder_config, decoder_rules, decoder_section
from megatron_ext.convert.rules import Family

_ABSENT = {"max_position_embeddings": 131072, "num_key_value_heads": 8, "sliding_window": 4096}


def model_config(hf: Mapping[str, Any]) -> ModelConfig:
    """Our section from ``config.json``; absent keys mean what they mean to transformers."""
    settings = {**_ABSENT, **hf}
    return decoder_section(settings, window_size=settings["sliding_window"])


def hf_config(model: ModelConfig) -> dict[str, Any]:
    """``config.json`` from our section."""
    return {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "sliding_window": model.window_size,
        **decoder_config(model),
    }


MISTRAL = Family("mistral", decoder_rules, model_config, hf_config, sometimes=frozenset({"window_size"}))
