"""Starting from a Hugging Face folder: what is refused, and by which key."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from megatron_ext.config.rules import check
from megatron_ext.config.sections import RunConfig
from megatron_ext.errors import CheckpointError, ConversionError
from megatron_ext.train.hooks import ExportHook
from megatron_ext.train.start import HFStart, find_start
from megatron_ext.train.state import TrainState

SHAPE = {
    "num_layers": 2, "hidden_size": 16, "ffn_hidden_size": 32, "num_attention_heads": 2, "vocab_size": 300,
    "layernorm_epsilon": 1e-6,
}  # fmt: skip


def run_config(folder: Path, checkpoint: dict[str, Any], **shape: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "x",
            "run_dir": str(folder / "run"),
            "model": {**SHAPE, **shape},
            "tokenizer": {"type": "ByteTokenizer"},
            "data": {"train": [{"path": "x"}]},
            "training": {"micro_batch_size": 1, "global_batch_size": 1, "seq_length": 8, "train_iters": 9},
            "optimizer": {"lr": 0.1},
            "checkpoint": checkpoint,
        }
    )


@pytest.fixture
def hf(tmp_path: Path) -> Path:
    """A model of transformers with the shape of the run."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "hf")
    return tmp_path / "hf"


def test_a_fresh_run_starts_from_the_folder(tmp_path: Path, hf: Path) -> None:
    start = find_start(run_config(tmp_path, {"load_hf": str(hf)}))
    assert isinstance(start, HFStart)
    assert (start.folder, start.assets, start.resumes) == (hf, hf, False)


def test_there_is_one_place_to_start_from(tmp_path: Path) -> None:
    (found,) = check(run_config(tmp_path, {"load": "a", "load_hf": "b"}))
    assert found == ("checkpoint.load_hf=b and checkpoint.load=a are two places to start from; remove one")
    assert check(run_config(tmp_path, {"load_hf": "b"})) == []


def test_every_difference_from_config_json_is_named(tmp_path: Path, hf: Path) -> None:
    config = run_config(tmp_path, {"load_hf": str(hf)}, ffn_hidden_size=48, rotary_base=5e5)
    with pytest.raises(CheckpointError) as caught:
        find_start(config)
    assert str(caught.value).splitlines() == [
        f"checkpoint.load_hf={hf} is another model than this run describes:",
        "  model.ffn_hidden_size is 48 in the run and 32 in config.json",
        "  model.rotary_base is 500000.0 in the run and 10000.0 in config.json",
    ]


def test_a_folder_that_is_missing_or_not_understood_is_named_with_the_key(tmp_path: Path, hf: Path) -> None:
    absent = tmp_path / "absent"
    with pytest.raises(CheckpointError, match=rf"checkpoint\.load_hf={absent}: .*no such folder; download"):
        find_start(run_config(tmp_path, {"load_hf": str(absent)}))
    content = json.loads((hf / "config.json").read_text())
    (hf / "config.json").write_text(json.dumps({**content, "num_hidden_layers": 3}))
    with pytest.raises(CheckpointError, match=r"checkpoint\.load_hf=.*missing: model\.layers\.2\."):
        find_start(run_config(tmp_path, {"load_hf": str(hf)}))
    (hf / "config.json").write_text(json.dumps({**content, "model_type": "t5"}))
    with pytest.raises(CheckpointError, match=r"checkpoint\.load_hf=.*'t5' is not supported"):
        find_start(run_config(tmp_path, {"load_hf": str(hf)}))


def test_what_the_export_could_not_replace_is_refused_before_training(tmp_path: Path, hf: Path) -> None:
    config = run_config(tmp_path, {"export_hf": True})
    run: Any = SimpleNamespace(config=config)
    ExportHook().before_training(run, TrainState())
    hf.rename(tmp_path / "earlier")
    Path(config.hf_dir).parent.mkdir()
    (tmp_path / "earlier").rename(config.hf_dir)
    ExportHook().before_training(run, TrainState())
    (Path(config.hf_dir) / "config.json").unlink()
    with pytest.raises(ConversionError, match=r"checkpoint\.export_hf: .*run/hf: not the output"):
        ExportHook().before_training(run, TrainState())
