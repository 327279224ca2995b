"""What is said where a run resumes with other settings than its checkpoint was saved with."""

import math
from pathlib import Path
from typing import Any

import pytest

from megatron_ext.config.dump import run_to_yaml
from megatron_ext.config.sections import RunConfig
from megatron_ext.train import resumed
from megatron_ext.train.state import TrainState

AT_TEN = TrainState(10, 40, 320)


def run_with(**changes: dict[str, Any]) -> RunConfig:
    values: dict[str, Any] = {
        "name": "x",
        "model": {
            "num_layers": 2, "hidden_size": 16, "ffn_hidden_size": 32, "num_attention_heads": 2, "vocab_size": 300,
        },
        "tokenizer": {"type": "ByteTokenizer"},
        "data": {"train": [{"path": "x"}]},
        "training": {"micro_batch_size": 1, "global_batch_size": 4, "seq_length": 8, "train_iters": 20},
        "optimizer": {"lr": 0.1},
    }  # fmt: skip
    return RunConfig.model_validate(
        {**values, **{name: {**values[name], **one} for name, one in changes.items()}}
    )


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (tmp_path / "run.yaml").write_text(run_to_yaml(run_with()), encoding="utf-8")
    lines: list[str] = []
    monkeypatch.setattr(resumed.logger, "info", lines.append)
    return lines


def test_nothing_is_said_of_the_same_run_on_another_layout(tmp_path: Path, said: list[str]) -> None:
    resumed.announce_changes(tmp_path, run_with(), AT_TEN)
    resumed.announce_changes(tmp_path, run_with(training={"micro_batch_size": 2, "eval_iters": 3}), AT_TEN)
    assert said == []


def test_a_longer_cosine_says_what_becomes_of_the_rate(tmp_path: Path, said: list[str]) -> None:
    """Step 11 of 20 and of 40, by the formula of the cosine."""
    resumed.announce_changes(tmp_path, run_with(training={"train_iters": 40}), AT_TEN)
    changed, rate = said
    assert changed == f"changed since {tmp_path.name} was saved: training.train_iters from 20 to 40"
    old, new = (0.05 * (1 + math.cos(math.pi * 11 / steps)) for steps in (20, 40))
    assert f"of update 11 is {new:.4g}, and would have been {old:.4g}" in rate


@pytest.mark.parametrize("optimizer", [{"lr_decay_iters": 20}, {"rewarm_from_iters": 10}])
def test_what_it_proposes_is_what_it_says(tmp_path: Path, said: list[str], optimizer: dict[str, int]) -> None:
    """One keeps the curve; the other begins a new one, whose rate is said too."""
    resumed.announce_changes(tmp_path, run_with(training={"train_iters": 40}), AT_TEN)
    (proposal,) = said[1:]
    ((key, value),) = optimizer.items()
    assert f"optimizer.{key}={value} " in proposal
    said.clear()
    resumed.announce_changes(tmp_path, run_with(training={"train_iters": 40}, optimizer=optimizer), AT_TEN)
    assert len(said) == (1 if key == "lr_decay_iters" else 2)


def test_skipped_steps_do_not_count(tmp_path: Path, said: list[str]) -> None:
    resumed.announce_changes(tmp_path, run_with(optimizer={"lr": 0.2}), TrainState(10, 40, 320, 3))
    assert said[0].endswith("saved: optimizer.lr from 0.1 to 0.2")
    assert "of update 8 is" in said[1]


def test_another_batch_and_decay_are_listed(tmp_path: Path, said: list[str]) -> None:
    changes = {"training": {"global_batch_size": 8}, "optimizer": {"weight_decay": 0.0, "adam_beta2": 0.99}}
    resumed.announce_changes(tmp_path, run_with(**changes), AT_TEN)
    (line,) = said
    assert (
        "training.global_batch_size from 4 to 8, optimizer.weight_decay from 0.1 to 0, optimizer.adam_beta2"
        in line
    )


def test_a_run_that_is_complete_says_so(tmp_path: Path, said: list[str]) -> None:
    resumed.announce_changes(tmp_path, run_with(training={"train_iters": 10}), AT_TEN)
    (line,) = said
    assert line.startswith("nothing is left to train: training.train_iters=10, and ")


def test_a_checkpoint_without_settings_is_no_obstacle(tmp_path: Path, said: list[str]) -> None:
    (tmp_path / "run.yaml").unlink()
    resumed.announce_changes(tmp_path, run_with(), AT_TEN)
    (line,) = said
    assert line.startswith("cannot tell what changed since")
