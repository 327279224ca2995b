"""Who prints what: every rank its warnings, rank 0 the rest; a line stays as it is."""

import os
import subprocess
import sys

import pytest

from megatron_ext.utils import console
from megatron_ext.utils.console import global_rank, progress

RANK_VARIABLES = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")
SPEAK = """\
from megatron_ext.utils.console import get_logger, progress
logger = get_logger("megatron_ext.some.module")
get_logger("megatron_ext.other")
logger.info("plain [bold]text[/bold] " + "x" * 200)
logger.warning("beware")
with progress("counting", 10, "things") as advance:
    advance(5, "note")
"""


@pytest.fixture(autouse=True)
def _outside_any_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in RANK_VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", RANK_VARIABLES)
def test_every_launcher_tells_the_rank(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert global_rank() == 0
    monkeypatch.setenv(name, "3")
    assert global_rank() == 3


def spoken(rank: int) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "RANK": str(rank), "COLUMNS": "80"}
    return subprocess.run(
        [sys.executable, "-c", SPEAK], env=environment, capture_output=True, text=True, check=True
    )


def test_rank_0_prints_each_line_once_unchanged_on_standard_error() -> None:
    said = spoken(0)
    assert said.stderr == f"plain [bold]text[/bold] {'x' * 200}\nwarning: beware\n"
    assert said.stdout == ""


def test_other_ranks_print_warnings_only() -> None:
    assert spoken(1).stderr == "warning: beware\n"


def test_progress_is_a_line_now_and_then_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    with progress("counting", 12_000, "things") as advance:
        advance(1_000, "too early")
        now += console.PLAIN_LINE_INTERVAL_S
        advance(500, "first")
        advance(1, "too early again")
        now += console.PLAIN_LINE_INTERVAL_S
        advance(1, "second")
    assert capsys.readouterr().err.splitlines() == [
        "counting: 12 %, 1,500 of 12,000 things, 150 things/s, 0:01:10 left, first",
        "counting: 12 %, 1,502 of 12,000 things, 75 things/s, 0:02:19 left, second",
    ]


def test_what_was_done_before_counts_for_the_fraction_but_not_for_the_speed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    with progress("reading", 10_000_000, "bytes", done=8_000_000) as advance:
        now += console.PLAIN_LINE_INTERVAL_S
        advance(500_000, "[a].jsonl")
    with progress("reading", None, "bytes") as advance:
        now += console.PLAIN_LINE_INTERVAL_S
        advance(5_000, "stdin")
    assert capsys.readouterr().err.splitlines() == [
        "reading: 85 %, 8.5 MB of 10.0 MB, 50.0 kB/s, 0:00:30 left, [a].jsonl",
        "reading: 5.0 kB, 500 bytes/s, stdin",
    ]


def test_other_ranks_show_no_progress(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(console, "PLAIN_LINE_INTERVAL_S", 0.0)
    with progress("counting", None, "things") as advance:
        advance(1, "note")
    assert capsys.readouterr().err == ""
