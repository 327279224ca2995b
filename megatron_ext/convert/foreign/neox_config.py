"""GPT-NeoX's YAML, which it copies into each checkpoint: the model that it describes, as ``config.json``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from megatron_ext.errors import ConversionError

FOLDER = "configs"
_REQUIRED = ("num_layers", "hidden_size", "num_attention_heads", "max_position_embeddings")
# What a Llama is: key, GPT-NeoX's own default, values that mean Llama.
_LLAMA: tuple[tuple[str, Any, tuple[Any, ...]], ...] = (
    ("norm", "layernorm", ("rmsnorm",)),
    ("pos_emb", "learned", ("rotary",)),
    ("activation", "gelu", ("silu", "swish", "swiglu")),
    ("rotary_pct", 1.0, (1.0,)),
    ("gpt_j_residual", False, (False,)),
    ("use_qk_layernorm", False, (False,)),
    ("sliding_window_width", None, (None,)),
)


def read_yaml(place: Path) -> dict[str, Any]:
    """All settings of GPT-NeoX's files, with underscores in place of hyphens.

    Args:
        place: a YAML file, or a folder of several.

    Raises:
        ConversionError: there is none, one cannot be read, or two disagree.
    """
    files = (
        [place]
        if place.is_file()
        else sorted(p for p in place.glob("*") if p.suffix in {".yml", ".yaml", ".json"})
    )
    if not files:
        raise ConversionError(f"{place}: no YAML of GPT-NeoX there; name the run's with --config")
    settings: dict[str, Any] = {}
    for file in files:
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConversionError(f"{file}: not YAML: {error}") from error
        if not isinstance(content, dict):
            raise ConversionError(f"{file}: holds a {type(content).__name__}, not settings of GPT-NeoX")
        for key, value in content.items():
            name = str(key).replace("-", "_")
            if settings.setdefault(name, value) != value:
                raise ConversionError(f"{file}: {key} is {value!r}, and {settings[name]!r} in another file")
    return settings


def config_of(settings: Mapping[str, Any], place: Path) -> dict[str, Any]:
    """``config.json`` of the model, but for what only its tensors tell: vocabulary and ffn size.

    Args:
        settings: from ``read_yaml``.
        place: where they stand, for messages.

    Raises:
        ConversionError: a setting is missing, or asks for what no Llama has.
    """
    wrong = [name for name in _REQUIRED if not _is_count(settings.get(name))]
    if settings.get("num_kv_heads") is not None and not _is_count(settings["num_kv_heads"]):
        wrong.append("num_kv_heads")
    if wrong:
        raise ConversionError(f"{place}: lacks {', '.join(wrong)}, or it is not a positive integer")
    unlike = [
        f"{name}={settings.get(name, default)!r}"
        for name, default, wanted in _LLAMA
        if settings.get(name, default) not in wanted
    ]
    if unlike:
        raise ConversionError(f"{place}: not a Llama: {', '.join(unlike)}")
    heads = settings["num_attention_heads"]
    return {
        "model_type": "llama",
        "hidden_size": settings["hidden_size"],
        "num_hidden_layers": settings["num_layers"],
        "num_attention_heads": heads,
        "num_key_value_heads": settings.get("num_kv_heads") or heads,
        "max_position_embeddings": settings["max_position_embeddings"],
        # GPT-NeoX's own defaults, which are not Hugging Face's
        "rms_norm_eps": float(settings.get("rms_norm_epsilon", 1e-8)),
        "rope_theta": float(settings.get("rotary_emb_base", 10000)),
        "tie_word_embeddings": not settings.get("no_weight_tying", False),
    }


def _is_count(value: object) -> bool:
    return isinstance(value, int) and value > 0
