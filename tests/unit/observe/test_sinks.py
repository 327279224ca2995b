"""Sinks: what they write, and that a stopped and resumed run leaves what an uninterrupted one does."""

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from megatron_ext.config.sections import LoggingConfig
from megatron_ext.errors import DataError, MissingDependencyError
from megatron_ext.observe.sinks import (
    ConsoleSink,
    JsonlSink,
    TensorBoardSink,
    WandbSink,
    build_sinks,
    format_duration,
    scalars,
    train_line,
    validation_line,
)


def train_record(iteration: int, **values: Any) -> dict[str, Any]:
    return {
        "kind": "train",
        "iteration": iteration,
        "lm_loss": 9.0 - iteration / 10,
        "learning_rate": 1e-2,
        "grad_norm": 0.8421,
        "iteration_time_s": 0.25,
        "tokens_per_second_per_gpu": 4012.3,
        "mfu": None,
        "flop_convention": "full attention",
    } | values


def validation_record(iteration: int, **values: Any) -> dict[str, Any]:
    return {
        "kind": "validation",
        "iteration": iteration,
        "lm_loss": 5.27,
        "perplexity": 194.4,
        "bits_per_byte": 2.86,
        "tokens": 123_456,
        "per_dataset": {"eng_Latn": {"lm_loss": 5.0, "bits_per_byte": None, "tokens": 100}},
    } | values


def rows(path: Path) -> list[tuple[str, int, float]]:
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(record["kind"], record["iteration"], record["lm_loss"]) for record in records]


def write(path: Path, resumed_iteration: int, iterations: range) -> None:
    sink = JsonlSink(path, resumed_iteration)
    for iteration in iterations:
        if iteration == 0:
            sink.write(validation_record(0))
            continue
        sink.write(train_record(iteration))
        if iteration % 5 == 0:
            sink.write(validation_record(iteration))
    sink.close()


def test_a_resumed_file_equals_that_of_an_uninterrupted_run(tmp_path: Path) -> None:
    write(tmp_path / "whole.jsonl", 0, range(21))
    resumed = tmp_path / "resumed.jsonl"
    write(resumed, 0, range(14))  # killed after 13 steps; the last checkpoint is at 10
    with resumed.open("a", encoding="utf-8") as stream:
        stream.write('{"kind": "train", "iterat')
    write(resumed, 10, range(11, 21))
    assert rows(resumed) == rows(tmp_path / "whole.jsonl")
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".tmp")] == []


def test_a_fresh_run_starts_a_fresh_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    write(path, 0, range(4))
    write(path, 0, range(3))
    assert [iteration for _, iteration, _ in rows(path)] == [0, 1, 2]


def test_each_line_can_be_read_as_soon_as_it_is_written(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "run" / "metrics.jsonl", 0)
    sink.write(train_record(1))
    assert rows(tmp_path / "run" / "metrics.jsonl") == [("train", 1, 8.9)]
    sink.close()


def test_nan_and_infinity_become_null_at_any_depth(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    sink = JsonlSink(path, 0)
    score = {"lm_loss": math.inf, "bits_per_byte": 1.0, "tokens": 1}
    sink.write(validation_record(1, lm_loss=math.nan, per_dataset={"a": score}))
    sink.close()
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["lm_loss"] is None
    assert record["per_dataset"]["a"] == {"lm_loss": None, "bits_per_byte": 1.0, "tokens": 1}


@pytest.mark.parametrize("line", ["not json", "[1]", '{"kind": "train"}', '{"iteration": null}'])
def test_a_line_that_is_no_record_is_named_and_the_file_left_alone(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    text = f"{json.dumps(train_record(1))}\n{line}\n{json.dumps(train_record(2))}\n"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"metrics\.jsonl:2: not a record of metrics"):
        JsonlSink(path, 1)
    assert path.read_text(encoding="utf-8") == text


def test_console_lines_are_one_readable_line(capsys: pytest.CaptureFixture[str]) -> None:
    sink = ConsoleSink(train_iters=1150)
    sink.write(train_record(20, mfu=0.4321))
    sink.write(validation_record(20))
    sink.close()
    printed = capsys.readouterr().err.splitlines()
    assert printed == [
        "iteration    20/1,150 | loss 7.0000 | lr 1.00e-02 | grad norm 0.842 | 4,012 tokens/s/device"
        " | MFU 43.2% | 0:04:42 left",
        "validation at    20/1,150 | loss 5.2700 | perplexity 194.40 | 2.8600 bits per byte"
        " | 123,456 tokens of 1 sets",
    ]


def test_console_lines_leave_out_what_is_unknown() -> None:
    assert "MFU" not in train_line(train_record(1), 10)
    assert "bits" not in validation_line(validation_record(1, bits_per_byte=None), 10)


def test_groups_have_a_line_each_but_labels(capsys: pytest.CaptureFixture[str]) -> None:
    tiers = {"high": {"lm_loss": 2.0, "tokens": 90}, "low": {"lm_loss": 3.25, "tokens": 10}}
    scripts = {f"s{number}": {"lm_loss": float(number), "tokens": number} for number in range(1, 11)}
    per_group = {"label": tiers, "tier": tiers, "script": scripts}
    ConsoleSink(train_iters=10).write(validation_record(2, per_group=per_group))
    assert capsys.readouterr().err.splitlines()[1:] == [
        "  loss by tier: high 2.0000, low 3.2500",
        "  loss by script: " + ", ".join(f"s{n} {n}.0000" for n in range(3, 11)) + ", and 2 more",
    ]


def test_scalars_hold_labels_only_if_asked() -> None:
    per_group = {"label": {"eng": {"lm_loss": 2.5}}, "tier": {"high": {"lm_loss": 2.0, "tokens": 90}}}
    plain, grouped = scalars(train_record(1)), scalars(train_record(1, per_group=per_group))
    assert grouped == plain | {"train_tier/high/lm_loss": 2.0, "train_tier/high/tokens": 90}
    with_labels = scalars(train_record(1, per_group=per_group), labels=True)
    assert with_labels == grouped | {"train_label/eng/lm_loss": 2.5}


@pytest.mark.parametrize("asked", [False, True])
def test_trackers_get_labels_where_the_run_asks(
    asked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    config = LoggingConfig(tensorboard=True, wandb_project="languages", track_labels=asked)
    for sink in build_sinks(config, tmp_path, 0, 10):
        sink.write(train_record(1, per_group={"label": {"eng": {"lm_loss": 2.5}}}))
        sink.close()
    name = "train_label/eng/lm_loss"
    assert (name in EventAccumulator(str(tmp_path / "tensorboard")).Reload().Tags()["scalars"]) == asked
    assert (name in fake.logged[0]) == asked


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0:00:00"), (59.6, "0:01:00"), (3_599, "0:59:59"), (86_400 * 3 + 3_661, "3 d 1:01:01")],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_scalars_are_flat_and_hold_numbers_only() -> None:
    assert scalars(validation_record(3)) == {
        "validation/iteration": 3,
        "validation/lm_loss": 5.27,
        "validation/perplexity": 194.4,
        "validation/bits_per_byte": 2.86,
        "validation/tokens": 123_456,
        "validation/eng_Latn/lm_loss": 5.0,
        "validation/eng_Latn/tokens": 100,
    }


def test_tensorboard_holds_each_step_once_after_a_resume(tmp_path: Path) -> None:
    for resumed, iterations in ((0, range(1, 8)), (5, range(6, 11))):
        sink = TensorBoardSink(tmp_path, resumed)
        for iteration in iterations:
            sink.write(train_record(iteration))
        sink.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    losses = {event.step: event.value for event in events.Scalars("train/lm_loss")}
    assert [event.step for event in events.Scalars("train/lm_loss")] == list(range(1, 11))
    assert losses[7] == pytest.approx(8.3)


class FakeWandb:
    """Stands in for the wandb module and remembers what it was told."""

    def __init__(self) -> None:
        self.started: list[dict[str, Any]] = []
        self.logged: list[dict[str, Any]] = []

    def init(self, **settings: Any) -> SimpleNamespace:
        self.started.append(settings)
        return SimpleNamespace(
            define_metric=lambda *_, **__: None, log=self.logged.append, finish=lambda: None
        )


def test_wandb_resumes_the_same_run_and_starts_a_new_one_afresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for resumed_iteration in (0, 10, 0):
        sink = WandbSink("languages", tmp_path / "tiny", resumed_iteration)
        sink.write(train_record(resumed_iteration + 1))
        sink.close()
    first, second, third = (settings["id"] for settings in fake.started)
    assert first == second != third
    assert fake.started[0]["project"] == "languages"
    assert fake.started[0]["name"] == "tiny"
    assert [record["iteration"] for record in fake.logged] == [1, 11, 1]
    assert fake.logged[0]["train/lm_loss"] == pytest.approx(8.9)


@pytest.mark.parametrize(
    ("config", "module"),
    [
        (LoggingConfig(tensorboard=True), "torch.utils.tensorboard"),
        (LoggingConfig(wandb_project="languages"), "wandb"),
    ],
    ids=["tensorboard", "wandb"],
)
def test_a_tracker_that_is_not_installed_is_named_before_anything_is_written(
    config: LoggingConfig, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=r"install it with: pip install"):
        build_sinks(config, tmp_path / "run", 0, 10)
    assert not (tmp_path / "run").exists()


def test_console_and_jsonl_are_always_there(tmp_path: Path) -> None:
    sinks = build_sinks(LoggingConfig(), tmp_path, 0, 10)
    assert [type(sink) for sink in sinks] == [ConsoleSink, JsonlSink]
    for sink in sinks:
        sink.close()
    assert (tmp_path / "metrics.jsonl").exists()
