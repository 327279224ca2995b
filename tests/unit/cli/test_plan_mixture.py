import json
from pathlib import Path

import pytest

from megatron_ext.cli.main import run_verb

RUN = Path(__file__).parents[3] / "configs/runs/quickstart.yaml"
TABLE = "lang_code,num_tokens\neng_Latn,4000000\nswa_Latn,200000\nque_Latn,900\n"


def plan(folder: Path, *arguments: str) -> int:
    table = folder / "table.csv"
    table.write_text(TABLE)
    return run_verb("plan-mixture", [str(table), *arguments])


def test_a_plan_is_printed_and_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mixture = tmp_path / "mixture.yaml"
    mixture.write_text("rule: {temperature: {alpha: 0.5}}\nmax_epochs: 8\n")
    output = tmp_path / "out"
    options = ["--mixture", str(mixture), "--output", str(output), "--run", str(RUN), "--simulate"]
    assert plan(tmp_path, *options, "--path", "data/{label}") == 0
    printed = capsys.readouterr().out
    assert "every set is within " in printed
    assert "compared after each of 1,150 steps of 16" in printed
    record = json.loads((output / "plan.json").read_text())
    assert (record["tokens"], record["samples"], record["seq_length"]) == (1150 * 16 * 128, 1150 * 16, 128)
    assert {path.name for path in output.iterdir()} == {"plan.json", "plan.txt", "chart.html", "blend.yaml"}
    assert plan(tmp_path, "--output", str(tmp_path / "two")) == 0
    assert "no blend.yaml" in capsys.readouterr().out
    assert not (tmp_path / "two/blend.yaml").exists()


def test_the_command_line_s_budget_replaces_the_mixture_s(tmp_path: Path) -> None:
    mixture = tmp_path / "mixture.yaml"
    mixture.write_text("budget: {train_iters: 10, global_batch_size: 4, seq_length: 64}\n")
    for arguments, tokens, seq_length in (
        ([], 2560, 64),
        (["--tokens", "1e6"], 1_000_000, 64),
        (["--train-iters", "5", "--global-batch-size", "2", "--seq-length", "32"], 320, 32),
    ):
        output = tmp_path / "out"
        assert plan(tmp_path, "--mixture", str(mixture), "--output", str(output), *arguments) == 0
        record = json.loads((output / "plan.json").read_text())
        assert (record["tokens"], record["seq_length"]) == (tokens, seq_length)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--train-iters", "3"], "give --tokens, or --train-iters with --global-batch-size"),
        (["--tokens", "3", "--run", str(RUN)], "--run and --tokens: give one of them"),
        (["--tokens", "nan"], "--tokens nan: must be above 0"),
        (["--run", "table.csv"], "table.csv"),
        (["--tokens", "-5"], "--tokens -5.0: must be above 0"),
        (["--tokens", "5"], "the run: would read no sample of 4,096 tokens"),
        (["--label-column", "language"], "column of label: there is no language"),
        (["--mixture", "missing.yaml"], "missing.yaml: cannot be read"),
    ],
)
def test_what_is_wrong_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert plan(tmp_path, *arguments) == 2
    assert told in capsys.readouterr().err


def test_the_run_may_name_the_blend_that_is_still_to_be_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run.yaml"
    run.write_text(f"defaults: [{RUN}, out/blend.yaml]\ntraining: {{train_iters: 200}}\n")
    assert plan(tmp_path, "--run", str(run), "--path", "{label}", "--output", str(tmp_path / "out")) == 0
    assert "out/blend.yaml; the run's steps are taken without it" in capsys.readouterr().err
    assert json.loads((tmp_path / "out/plan.json").read_text())["samples"] == 200 * 16
    run.write_text("training: {train_iters: 200}\n")
    assert plan(tmp_path, "--run", str(run)) == 2
    assert "run.yaml:1: seq_length: missing" in capsys.readouterr().err
    run.write_text("name: x\n")
    assert plan(tmp_path, "--run", str(run)) == 2
    assert "training: missing" in capsys.readouterr().err


def test_problems_of_a_mixture_name_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mixture = tmp_path / "mixture.yaml"
    mixture.write_text("overrides: {swa_latn: {share: 0.1}, enq_Latn: {share: 0.1}}\n")
    assert plan(tmp_path, "--mixture", str(mixture), "--output", str(tmp_path / "out")) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(
        f"error: {mixture}: overrides.swa_latn: there is no swa_latn; did you mean swa_Latn"
    )
    assert second.startswith(f"{mixture}: overrides.enq_Latn")
    assert not (tmp_path / "out").exists()
