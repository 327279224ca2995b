"""The families that can be converted. To add one: a file like ``llama.py``, and its name here."""

from collections.abc import Mapping
from typing import Any

from megatron_ext.config.sections import ModelConfig
from megatron_ext.convert.llama import LLAMA
from megatron_ext.convert.rules import Family
from megatron_ext.errors import ConversionError

FAMILIES: dict[str, Family] = {family.model_type: family for family in (LLAMA,)}
DEFAULT_FAMILY = LLAMA
"""Of a checkpoint that was trained from nothing and so carries no ``config.json``."""


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


def model_config_from_hf(hf_config: Mapping[str, Any]) -> ModelConfig:
    """The ``model:`` section that describes the same model as the content of a ``config.json``.

    Raises:
        ConversionError: the architecture, or a setting of it, is not supported; names each one.
    """
    return family_of(hf_config).model_config(hf_config)
