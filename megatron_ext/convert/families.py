"""The families that can be converted. To add one: a file like ``llama.py``, and its name here."""

from collections.abc import Mapping
from typing import Any

from megatron_ext.config.sections import ModelConfig
from megatron_ext.convert.llama import LLAMA
from megatron_ext.convert.mistral import MISTRAL
from megatron_ext.convert.qwen2 import QWEN2
from megatron_ext.convert.qwen3 import QWEN3
from megatron_ext.convert.rules import FEATURES, Family
from megatron_ext.errors import ConversionError

FAMILIES: dict[str, Family] = {family.model_type: family for family in (LLAMA, MISTRAL, QWEN2, QWEN3)}


def family_of(hf_config: Mapping[str, Any]) -> Family:
    """The family a ``config.json`` belongs to.

    Raises:
        ConversionError: its ``model_type`` is missing or not known here.
    """
    model_type = hf_config.get("model_type")
    if model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise ConversionError(f"config.json: model_type {model_type!r} is not supported; supported: {known}")
    return FAMILIES[model_type]


def family_for(model: ModelConfig, hf_config: Mapping[str, Any] | None) -> Family:
    """The family to export a model as: that of the ``config.json`` it came with, else the first that has such models.

    Raises:
        ConversionError: that family, or every one, lacks a feature of the model.
    """
    candidates = list(FAMILIES.values()) if hf_config is None else [family_of(hf_config)]
    for family in candidates:
        if family.holds(model):
            return family
    features = ", ".join(f"{name}={getattr(model, name)}" for name in FEATURES)
    names = ", ".join(family.model_type for family in candidates)
    raise ConversionError(f"no such model in {names}: {features}")


def model_config_from_hf(hf_config: Mapping[str, Any]) -> ModelConfig:
    """The ``model:`` section that describes the same model as the content of a ``config.json``.

    Raises:
        ConversionError: the architecture, or a setting of it, is not supported; names each one.
    """
    return family_of(hf_config).model_config(hf_config)
