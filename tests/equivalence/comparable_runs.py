"""One small world for all comparisons: three languages as bytes, a random Llama, runs started as users do it."""

import dataclasses
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import LlamaConfig

ROOT = Path(__file__).parents[2]
SEQ_LENGTH = 32
TRAIN_ITERS = 20
LANGUAGES = {
    "eng_Latn": "All human beings are born free and equal in dignity and rights. ",
    "fin_Latn": "Kaikki ihmiset syntyvät vapaina ja tasavertaisina arvoltaan ja oikeuksiltaan. ",
    "hin_Deva": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है। ",
}


@dataclasses.dataclass(frozen=True)
class World:
    """Paths that every comparison shares, and the run configuration that names them."""

    folder: Path
    hf: Path
    imported: Path
    config: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Finished:
    """A run that ended well."""

    folder: Path
    records: list[dict[str, Any]]

    @property
    def train(self) -> list[dict[str, Any]]:
        return [record for record in self.records if record["kind"] == "train"]

    @property
    def validation(self) -> list[dict[str, Any]]:
        return [record for record in self.records if record["kind"] == "validation"]

    def column(self, name: str) -> list[float]:
        return [record[name] for record in self.train]


def llama_config() -> LlamaConfig:
    """GQA, and a vocabulary that two tensor-parallel ranks cannot share evenly."""
    return LlamaConfig(
        vocab_size=259, hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=SEQ_LENGTH, rms_norm_eps=1e-5, tie_word_embeddings=False,
        initializer_range=0.05,
    )  # fmt: skip


def run_config(folder: Path) -> dict[str, Any]:
    return {
        "name": "equivalence",
        "device": "cpu",
        "model": {
            "num_layers": 4, "hidden_size": 64, "ffn_hidden_size": 96, "num_attention_heads": 4,
            "num_query_groups": 2, "vocab_size": 259, "max_position_embeddings": SEQ_LENGTH,
        },
        "tokenizer": {"type": "ByteTokenizer"},
        "data": {
            "train": grouped(f"{folder}/data/train"),
            "valid": grouped(f"{folder}/data/valid"),
        },
        "training": {
            "micro_batch_size": 2, "global_batch_size": 8, "seq_length": SEQ_LENGTH, "train_iters": TRAIN_ITERS,
            "precision": "fp32",
        },
        "optimizer": {"lr": 5e-3, "min_lr": 5e-4, "lr_warmup_iters": 4, "clip_grad": 0.5},
        "checkpoint": {"load": f"{folder}/imported"},
        "logging": {"log_interval": 1},
        "launch": {"threads_per_process": 1},
    }  # fmt: skip


def grouped(folder: str) -> list[dict[str, Any]]:
    """All sets of a folder, in two tiers and one category."""
    tiers = {"*_Latn": {"tier": "high"}, "hin_*": {"tier": "low", "label": "Hindi"}}
    return [
        {"path": f"{folder}/{pattern}_text_document", "groups": {**groups, "category": "mono"}}
        for pattern, groups in tiers.items()
    ]


def same_groups(ours: Mapping[str, Any], theirs: Mapping[str, Any], **tolerance: float) -> None:
    """Compare ``per_group`` of two records: the same groups and counts, and losses as near as asked."""
    for dimension in theirs.keys() | ours.keys():
        assert ours[dimension].keys() == theirs[dimension].keys()
        for value, expected in theirs[dimension].items():
            assert ours[dimension][value] == pytest.approx(expected, **tolerance)


def launch(world: World, folder: Path, *overrides: str, processes: int = 1) -> Finished:
    """Start a run as its user does, wait for its end, and read its metrics."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(world.config), encoding="utf-8")
    command = [
        str(ROOT / "launch.sh"), str(config), f"run_dir={folder}/run", *overrides,
        "--nproc-per-node", str(processes),
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    result = subprocess.run(
        command, cwd=folder, env=environment, check=False, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return read_finished(folder / "run")


def read_finished(folder: Path) -> Finished:
    """What a run left in its folder."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return Finished(folder, [json.loads(line) for line in lines])
