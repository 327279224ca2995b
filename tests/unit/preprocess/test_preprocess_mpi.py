"""Several ranks write what one process writes, and end together."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from preprocess_command import finish, start, wait_for_markers

from megatron_ext.cli.main import main
from megatron_ext.data.preprocess import preprocess
from megatron_ext.data.preprocess_plan import InputIdentity, Part, share_parts
from megatron_ext.errors import LaunchError, MissingDependencyError

BIN = str(Path(sys.executable).parent)
MPIRUN = shutil.which("mpirun", path=f"{BIN}{os.pathsep}{os.environ['PATH']}")


def needs_mpirun(test: Callable[..., None]) -> Callable[..., None]:
    absent = MPIRUN is None or importlib.util.find_spec("mpi4py") is None
    return pytest.mark.launchers(pytest.mark.skipif(absent, reason="no mpirun or no mpi4py")(test))


OPTIONS = (
    "--tokenizer-type",
    "ByteTokenizer",
    "--append-eod",
    "--on-error",
    "skip",
    "--json-keys",
    "text",
    "title",
)


def write_inputs(folder: Path, documents: Sequence[int]) -> Path:
    folder.mkdir()
    for number, rows in enumerate(documents):
        lines = [json.dumps({"text": f"{number} {row} é", "title": "T"}) for row in range(rows)]
        (folder / f"{number}.jsonl").write_text("\n".join([*lines, '{"text": "no title"}']) + "\n")
    return folder


def mpirun(ranks: int) -> list[str]:
    assert MPIRUN is not None
    return [MPIRUN, "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)]


def run(folder: Path, ranks: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    return finish(start(arguments, folder, mpirun(ranks)))


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def errors(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if "error: " in line]


def expected(inputs: Path, output: Path, **options: Any) -> dict[str, bytes]:
    keys = ["text", "title"]
    preprocess(
        [inputs],
        str(output),
        tokenizer_type="ByteTokenizer",
        json_keys=keys,
        append_eod=True,
        on_error="skip",
        workers=1,
        **options,
    )
    return content(output if options else output.parent)


@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.parametrize("ranks", [2, 3])
@needs_mpirun
def test_they_write_what_one_process_writes(tmp_path: Path, ranks: int, shards: bool) -> None:
    inputs = write_inputs(tmp_path / "in", [30, 500, 1, 7, 90])
    extra = ["--shard-per-input"] if shards else []
    arguments = ["--input", str(inputs), "--output-prefix", str(tmp_path / "out" / "p"), *OPTIONS, *extra]
    done = run(tmp_path, ranks, *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("next: ") == 1
    assert "skipped bad lines, missing key: 5; the first: " in done.stdout
    assert "5 of 5 inputs, " in done.stdout
    written = content(tmp_path / "out" / "p" if shards else tmp_path / "out")
    alone = tmp_path / "alone" / "p"
    assert written == (expected(inputs, alone, shard_per_input=True) if shards else expected(inputs, alone))


@needs_mpirun
def test_an_error_on_another_rank_ends_all_and_the_rest_is_done_later(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path / "in", [900, 600, 1])
    bad = inputs / "1.jsonl"  # the second largest, so rank 1's
    good = bad.read_bytes()
    bad.write_bytes(good + b"{")
    arguments = ["--input", str(inputs), "--output-prefix", str(tmp_path / "out" / "p"), *OPTIONS]
    arguments[arguments.index("skip")] = "fail"
    arguments.remove("title")
    done = run(tmp_path, 2, *arguments)
    assert done.returncode == 2, done.stderr
    assert len(errors(done)) == 1
    assert errors(done)[0].startswith(f"error: {bad}:602: not valid JSON")
    assert errors(done)[0].endswith("(rank 1)")
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "out").glob("p*"))
    bad.write_bytes(good)
    done = run(tmp_path, 2, *arguments)
    assert done.returncode == 0, done.stderr
    assert f"{inputs}/1.jsonl" not in done.stderr
    assert len(list((tmp_path / "out").iterdir())) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--input": "absent.jsonl"}, "absent.jsonl: no such file"),
        ({"--input": "-"}, "- (standard input) can be read by one process, not by 2"),
        ({"--tokenizer-type": "SentencePieceTokenizer"}, "SentencePieceTokenizer needs a tokenizer model"),
    ],
)
@needs_mpirun
def test_what_all_ranks_would_find_is_said_once(tmp_path: Path, change: dict[str, str], message: str) -> None:
    inputs = write_inputs(tmp_path / "in", [3])
    options = {
        "--input": str(inputs),
        "--output-prefix": str(tmp_path / "p"),
        "--tokenizer-type": "ByteTokenizer",
    }
    done = run(tmp_path, 2, *(word for option in {**options, **change}.items() for word in option))
    assert done.returncode == 2, done.stderr
    assert len(errors(done)) == 1
    assert message in errors(done)[0]
    assert not list(tmp_path.glob("p*_document*"))


@needs_mpirun
def test_a_killed_job_goes_on_in_one_process(tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path / "in", [40_000] * 6)
    arguments = ["--input", str(inputs), "--output-prefix", str(tmp_path / "out" / "p"), *OPTIONS]
    process = start(arguments, tmp_path, mpirun(2))
    wait_for_markers(process, tmp_path / "out", 1)
    process.send_signal(signal.SIGTERM)
    assert finish(process).returncode != 0
    assert not list(tmp_path.glob("out/p*"))
    assert run(tmp_path, 1, *arguments).returncode == 0
    assert content(tmp_path / "out") == expected(inputs, tmp_path / "alone" / "p")


def under_mpirun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SIZE", "LOCAL_SIZE"):
        monkeypatch.setenv(f"OMPI_COMM_WORLD_{name}", "2")
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(f"OMPI_COMM_WORLD_{name}", "0")


def test_mpi4py_is_asked_for_where_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = write_inputs(tmp_path / "in", [3])
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    arguments = ["preprocess", "--input", str(inputs), "--output-prefix", str(tmp_path / "p"), *OPTIONS]
    assert main(arguments) == 0
    under_mpirun(monkeypatch)
    assert main([*arguments, "--overwrite"]) == MissingDependencyError.exit_code
    said = capsys.readouterr().err
    assert "mpi4py is needed to preprocess with 2 processes; install it with: pip install" in said


def test_processes_that_mpi_does_not_connect_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class World:
        @staticmethod
        def Get_size() -> int:  # noqa: N802 (mpi4py's name)
            return 1

    fake = type(sys)("mpi4py")
    fake.MPI = type("MPI", (), {"COMM_WORLD": World})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mpi4py", fake)
    under_mpirun(monkeypatch)
    with pytest.raises(LaunchError, match="started 2 processes, but MPI connects 1 of them"):
        preprocess([write_inputs(tmp_path / "in", [1])], str(tmp_path / "p"), tokenizer_type="ByteTokenizer")


@given(sizes=st.lists(st.integers(0, 1000), max_size=30), ranks=st.integers(1, 6))
def test_parts_are_spread_evenly_each_once_and_in_order(sizes: list[int], ranks: int) -> None:
    parts = [
        Part(
            Path(),
            str(number),
            (Path(f"{number}.txt"),),
            (InputIdentity(path="", size=size, mtime_ns=0),),
            1,
            (),
        )
        for number, size in enumerate(sizes)
    ]
    shares = share_parts(parts, ranks)
    assert len(shares) == ranks
    assert sorted((part for share in shares for part in share), key=parts.index) == parts
    assert all(share == sorted(share, key=parts.index) for share in shares)
    # Graham's bound for the largest first: 4/3 of the best, which is at least the mean and the largest.
    loads = [sum(part.size for part in share) for share in shares]
    pairs = sorted(sizes, reverse=True)[ranks - 1 : ranks + 1]
    best = max([sum(sizes) / ranks, max(sizes, default=0), sum(pairs) if len(pairs) == 2 else 0])
    assert max(loads) <= 4 / 3 * best + 1
