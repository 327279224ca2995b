"""Sources with known content, taken from the sample corpus of the repository."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from megatron_ext.corpus.cleaning.config import RepairConfig
from megatron_ext.corpus.cleaning.filters import FilterConfig
from megatron_ext.corpus.counts import CATEGORIES

SAMPLE = Path(__file__).parents[4] / "examples" / "udhr" / "udhr.jsonl.gz"
LANGUAGES = {"eng": "Latn", "fra": "Latn", "rus": "Cyrl", "arb": "Arab", "hin": "Deva", "tha": "Thai"}
# Cleaning that changes and removes nothing: a category's keys win over all others.
_RULES = {key: None for key in FilterConfig.model_fields if key.startswith(("min_", "max_"))} | {
    "lorem_ipsum": False
}
_REPAIRS = {key: None if key == "max_line_repeats" else False for key in RepairConfig.model_fields}
NO_CLEANING = {"categories": {name: {"filters": _RULES, "repairs": _REPAIRS} for name in CATEGORIES}}


def sample_rows(*codes: str) -> Iterator[dict[str, Any]]:
    """Documents of these languages, as they lie in the sample."""
    with gzip.open(SAMPLE, "rt", encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row["iso639_3"] in codes:
                yield row


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    """JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_manifest(folder: Path, sources: list[dict[str, Any]], **more: Any) -> Path:
    """A manifest in ``folder`` of a corpus in ``folder/corpus``."""
    path = folder / "corpus.yaml"
    content = {"name": "test", "output": str(folder / "corpus"), "sources": sources, **more}
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def read_shard(path: Path) -> list[dict[str, Any]]:
    """Documents of a shard, by other code than ours."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    elif path.suffix == ".zst":
        from backports import zstd  # noqa: PLC0415 (of the standard library from 3.14 on)

        content = zstd.decompress(content)
    return [json.loads(line) for line in content.decode().splitlines()]
