"""Rotary embeddings in ``config.json``: transformers 5 keeps their settings in one place, 4 in two others."""

from collections.abc import Mapping
from typing import Any

from megatron_ext.config.section_rope import OPTIONAL_KEYS, REQUIRED_KEYS
from megatron_ext.config.sections import ModelConfig

DEFAULT_BASE = 10000.0
_NEEDS_ORIGINAL = [name for name, keys in REQUIRED_KEYS.items() if "original_max_position_embeddings" in keys]
_UNSCALED = (None, "default")


def rope_section(hf: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of our ``model:`` section, for settings without ``rope_problems``."""
    found = {key: next(iter(values)) for key, values in _values(hf).items()}
    section = {"rotary_base": found.pop("rope_theta", DEFAULT_BASE)}
    found.pop("partial_rotary_factor", None)
    rope_type = found.get("rope_type")
    if rope_type in _UNSCALED:
        return section
    if rope_type in _NEEDS_ORIGINAL:
        found.setdefault("original_max_position_embeddings", hf.get("max_position_embeddings"))
    return {**section, "rope_scaling": found}


def rope_problems(hf: Mapping[str, Any]) -> list[str]:
    """What we do not compute, or what contradicts itself."""
    values = _values(hf)
    found = [f"different values of {key}: {sorted(all_)}" for key, all_ in values.items() if len(all_) > 1]
    unknown = values.get("rope_type", set()) - {*REQUIRED_KEYS, *_UNSCALED}
    found += [f"rope_scaling of type {name!r} (only {', '.join(OPTIONAL_KEYS)})" for name in sorted(unknown)]
    partial = values.get("partial_rotary_factor", set()) - {1.0}
    return found + [f"partial_rotary_factor={factor}" for factor in sorted(partial)]


def rope_config(model: ModelConfig) -> dict[str, Any]:
    """The keys of ``config.json``, under the names of both transformers."""
    scaling = None if model.rope_scaling is None else model.rope_scaling.model_dump(exclude_none=True)
    return {
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rotary_base, **(scaling or {})},
        "rope_scaling": scaling,
        "rope_theta": model.rotary_base,
    }


def _values(hf: Mapping[str, Any]) -> dict[str, set[Any]]:
    """Every setting with all values that are given for it."""
    values: dict[str, set[Any]] = {}
    anywhere = ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings")
    top = {key: hf.get(key) for key in anywhere}
    for place in (top, hf.get("rope_scaling") or {}, hf.get("rope_parameters") or {}):
        for key, value in place.items():
            if value is not None:
                values.setdefault("rope_type" if key == "type" else key, set()).add(value)
    scaling_types = values.get("rope_type", set()) - {"default"}
    if scaling_types:
        values["rope_type"] = scaling_types
    return values
