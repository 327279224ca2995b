"""`estimate`: plan, step time, ranking, comparison with published speeds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_ext.cli.main import run_verb

REPOSITORY = Path(__file__).parents[3]
RUN = str(REPOSITORY / "configs/runs/llama2_7b_256gpu.yaml")


def test_plan_time_and_ranking(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_verb("estimate", [RUN, "--gpu", "a100-80", "--top", "3"]) == 0
    output = capsys.readouterr().out
    for expected in (
        "201,326,592,000",
        "one step on a100-80, estimated",
        "GPT-NeoX, Llemma 7B",
        "2,272",
        "fastest layouts on 256 × a100-80",
        "DP256",
    ):
        assert expected in output


def test_another_number_of_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_verb("estimate", [RUN, "--gpu", "h200", "--gpus", "64", "--top", "1"]) == 0
    assert "fastest layouts on 64 × h200" in capsys.readouterr().out
    assert run_verb("estimate", [RUN, "--gpus", "12"]) == 2
    assert "--gpus 12: up to 8, or a multiple of 8" in capsys.readouterr().err


def test_where_nothing_fits_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_verb("estimate", [RUN, "--gpu", "h100", "--gpus", "1"]) == 0
    output = capsys.readouterr().out
    assert "does not fit" in output
    assert "fastest layouts on 1 × h100: none fits; take more GPUs or larger ones" in output


def test_other_precisions_than_16_bits_are_said_to_be_estimated_as_such(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_verb("estimate", [RUN, "training.precision=fp32", "--gpu", "h200", "--top", "0"]) == 0
    assert "products are estimated in 16 bits" in capsys.readouterr().err


def test_check_needs_no_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_verb("estimate", ["--check"]) == 0
    output = capsys.readouterr().out
    assert "KempnerForge" in output
    assert "mosaicml/llm-foundry" in output
    assert "other code bases" in output
    assert "mean of absolute values" in output


def test_nothing_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_verb("estimate", []) == 2
    assert capsys.readouterr().err == "error: no configuration file given\n"


def test_a_traced_step(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own, which it redirects for good; there Triton compiles."""
    pytest.importorskip("triton")
    quickstart = str(REPOSITORY / "configs/runs/quickstart.yaml")
    arguments = [quickstart, "--gpu", "h100", "--top", "0", "--trace"]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    traced = subprocess.run(
        [sys.executable, str(REPOSITORY / "tools/estimate.py"), *arguments],
        env=environment, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "traced a step of 2 of 4 processes" in traced.stderr
    _, tables = traced.stdout.split("memory of each pipeline stage, MiB")
    for expected in ("2 micro-batches and an update on rank 2", "GEMM", "tokens/s of each h100", "waits"):
        assert expected in tables
    assert run_verb("estimate", [RUN, *arguments[1:], "training.fp8=hybrid"]) == 2
    assert "training.fp8=hybrid" in capsys.readouterr().err
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert run_verb("estimate", arguments) == 2
    assert "TRITON_INTERPRET=1" in capsys.readouterr().err
