"""The small files around the weights: configuration and tokenizer, carried along from import to export."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from megatron_ext.errors import ConversionError

FOLDER = "hf"
"""Where a checkpoint keeps them."""
CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
)
TOKENIZER_MODELS = ("tokenizer.json", "tokenizer.model", "vocab.json")
"""Any one of these makes a tokenizer."""
CARRIED = (CONFIG, GENERATION_CONFIG, *TOKENIZER_FILES)
"""What is carried along from a Hugging Face folder."""


def copy_assets(source: Path, target: Path, names: Sequence[str] = CARRIED) -> list[str]:
    """Copy those of the named files that are in ``source``; returns their names."""
    target.mkdir(parents=True, exist_ok=True)
    copied = [name for name in names if (source / name).is_file()]
    for name in copied:
        shutil.copyfile(source / name, target / name)
    return copied


def read_config(folder: Path) -> dict[str, Any]:
    """The content of ``folder/config.json``.

    Raises:
        ConversionError: there is none, or it is not a JSON object.
    """
    path = folder / CONFIG
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ConversionError(f"{path}: missing; {folder} is not a Hugging Face model folder") from error
    except ValueError as error:
        raise ConversionError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ConversionError(f"{path}: holds a {type(content).__name__}, not an object")
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a Hugging Face JSON file: keys sorted, as transformers writes them."""
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
