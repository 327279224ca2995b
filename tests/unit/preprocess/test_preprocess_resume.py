"""Jobs that are stopped, killed at any step, or met by other inputs and outputs when they go on."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from preprocess_command import finish, start, wait_for_markers, wait_until

from megatron_ext.cli.main import main
from megatron_ext.data import preprocess_plan
from megatron_ext.data.indexed import IndexedDataset
from megatron_ext.data.preprocess import PreprocessReport, preprocess
from megatron_ext.errors import DataError

ROOT = Path(__file__).parents[3]
TOOL = ROOT / "tools" / "preprocess_data.py"
BAD_LINE = b'{"text": 7, "title": "lost"}\n'


@pytest.fixture(autouse=True)
def _each_input_is_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocess_plan, "SMALL_BYTES", 0)


def write_input(path: Path, documents: int = 5) -> Path:
    rows = [
        {"text": f"{path.name} {row} é", "title": f"{row}" if row % 3 else ""} for row in range(documents)
    ]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in rows) + BAD_LINE)
    return path


@pytest.fixture
def inputs(tmp_path: Path) -> list[Path]:
    return [write_input(tmp_path / "in" / f"{name}.jsonl") for name in "abc"]


def run(inputs: list[Path], output: Path, **options: Any) -> PreprocessReport:
    options = {
        "tokenizer_type": "ByteTokenizer",
        "json_keys": ["text", "title"],
        "on_error": "skip",
        **options,
    }
    return preprocess(inputs, str(output), workers=1, append_eod=True, **options)


def content(folder: Path) -> dict[str, bytes]:
    """All files, hidden ones included."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def visible(folder: Path) -> dict[str, bytes]:
    """What ``ls`` shows."""
    return {name: found for name, found in content(folder).items() if not name.startswith(".")}


def killed_at(step: int, action: Callable[[], object]) -> bool:
    """Run in another process, which is killed before its ``step``-th change of the disk; False if it got through."""
    child = os.fork()
    if child == 0:
        _kill_before_step(step)
        try:
            action()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def _kill_before_step(step: int) -> None:
    steps = iter(range(step, -1, -1))

    def counted(function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: Any, **named: Any) -> object:
            if next(steps) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return call

    for name in ("rename", "replace", "unlink", "rmdir", "mkdir"):
        setattr(Path, name, counted(getattr(Path, name)))
    os.fsync, os.sendfile = counted(os.fsync), counted(os.sendfile)  # type: ignore[assignment]


@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.parametrize("replaced", [False, True])
def test_a_kill_at_any_step_changes_nothing_in_the_end(
    tmp_path: Path, inputs: list[Path], shards: bool, replaced: bool
) -> None:
    def work(folder: Path, **options: Any) -> PreprocessReport:
        return run(inputs[:2], folder if shards else folder / "p", shard_per_input=shards, **options)

    folder = tmp_path / "out"
    expected_report = work(folder)
    expected = content(folder)
    assert len(expected) == (12 if shards else 6)
    step, killed = 0, True
    while killed:
        for path in folder.rglob("*"):
            if replaced and not path.name.startswith("."):
                path.write_bytes(b"old")  # --overwrite, over datasets of other text
            elif path.is_file():
                path.unlink()
        killed = killed_at(step, lambda: work(folder, overwrite=replaced))
        complete = visible(folder) == expected
        refusal = ""
        try:
            report = work(folder)
            assert report.skipped == expected_report.skipped
            assert report.datasets == expected_report.datasets
        except DataError as error:
            refusal = str(error)
        if refusal and not complete:  # the kill came before the permission to replace was on disk
            assert replaced
            assert "exists already" in refusal
            work(folder, overwrite=True)
        assert visible(folder) == expected
        step += 11 if replaced else 5
    assert step > 100


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_command_goes_on(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    for number in range(6):
        write_input(tmp_path / "in" / f"{number}.jsonl", 2_000)
    shards = seed % 2 == 1
    command = ["--input", str(tmp_path / "in"), "--tokenizer-type", "ByteTokenizer", "--on-error", "skip"]
    command += ["--json-keys", "text", "title", "--append-eod", "--workers", "1"]
    command += ["--output-prefix", str(tmp_path / "out" / "p"), *(["--shard-per-input"] if shards else [])]
    made = tmp_path / "out" / "p" if shards else tmp_path / "out"
    for markers in sorted(chance.sample(range(1, 5), 2)):
        process = start(command, tmp_path)
        wait_for_markers(process, made, markers)
        time.sleep(chance.random() / 20)
        process.kill()
        assert finish(process).returncode == -signal.SIGKILL
    done = finish(start(command, tmp_path))
    assert done.returncode == 0, done.stderr
    assert "of 6 inputs were done by an earlier run" in done.stderr
    assert "were done by an earlier run" in done.stdout
    run([tmp_path / "in"], tmp_path / "expected" / "p", shard_per_input=shards)
    assert content(tmp_path / "out") == content(tmp_path / "expected")


@pytest.fixture
def stopped(tmp_path: Path, inputs: list[Path]) -> Iterator[Path]:
    """The prefix of a job that ended after two of three inputs, by a broken line in the third; now mended."""
    good = inputs[2].read_bytes()
    inputs[2].write_bytes(good + b"{")
    with pytest.raises(DataError, match=r"c.jsonl:7: not valid JSON"):
        run_strictly(inputs, tmp_path / "out" / "p")
    assert not list((tmp_path / "out").glob("p*"))
    inputs[2].write_bytes(good)
    yield tmp_path / "out" / "p"
    assert not list((tmp_path / "out").glob(".*"))


def run_strictly(inputs: list[Path], output: Path, **options: Any) -> PreprocessReport:
    """With a key that no line lacks, so that none needs to be skipped."""
    return run(inputs, output, **{"json_keys": ["title"], "on_error": "fail", **options})


def same_as_at_once(inputs: list[Path], output: Path, **options: Any) -> bool:
    expected = output.parent.with_name("expected") / output.name
    run_strictly(inputs, expected, **options)
    return content(expected.parent) == content(output.parent)


def test_after_an_error_the_rest_is_done(
    stopped: Path, inputs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    report = run_strictly(inputs, stopped)
    assert (report.inputs, report.resumed, report.file_bytes) == (3, 2, inputs[2].stat().st_size)
    assert capsys.readouterr().err == "2 of 3 inputs were done by an earlier run\n"
    assert same_as_at_once(inputs, stopped)


def test_changed_inputs_are_done_again_and_named(
    stopped: Path, inputs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    text = inputs[0].read_bytes().replace(b'"1"', b'"X"')  # of the same size
    inputs[0].write_bytes(text)
    assert run_strictly(inputs, stopped).resumed == 1
    assert (
        f"tokenized again, though an earlier run did: {inputs[0]} (changed since)" in capsys.readouterr().err
    )
    assert b"X" in Path(f"{stopped}_title_document.bin").read_bytes()
    assert same_as_at_once(inputs, stopped)


def test_another_option_does_all_again(
    stopped: Path, inputs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_strictly(inputs, stopped, prepend_bos=True).resumed == 0
    said = capsys.readouterr().err
    assert f"{inputs[0]} and 1 more (tokenized with another prepend_bos)" in said
    assert same_as_at_once(inputs, stopped, prepend_bos=True)


def test_another_tokenizer_does_all_again(
    stopped: Path, inputs: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("megatron_ext.tokenizer.byte.ByteTokenizer.fingerprint", "0" * 64)
    assert run_strictly(inputs, stopped).resumed == 0
    assert "(tokenized with another tokenizer)" in capsys.readouterr().err
    assert same_as_at_once(inputs, stopped)


def test_inputs_may_come_and_go_and_change_their_order(
    tmp_path: Path, stopped: Path, inputs: list[Path]
) -> None:
    added = write_input(tmp_path / "in" / "d.jsonl")
    others = [added, inputs[1], inputs[0]]
    assert run_strictly(others, stopped).resumed == 2
    assert same_as_at_once(others, stopped)


def test_a_part_that_was_damaged_is_done_again(
    stopped: Path, inputs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = sorted(stopped.parent.glob(".*.parts/*.bin"))[0]
    damaged.write_bytes(damaged.read_bytes()[:-2])
    assert run_strictly(inputs, stopped).resumed == 1
    assert "is gone or not as it was written" in capsys.readouterr().err
    assert same_as_at_once(inputs, stopped)


def test_what_was_skipped_is_an_error_when_nothing_may_be(
    tmp_path: Path, inputs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    assert killed_at(60, lambda: run(inputs, tmp_path / "out" / "p", json_keys=["text"]))
    capsys.readouterr()
    with pytest.raises(DataError, match=r"a.jsonl:6: 'text' holds a number"):
        run(inputs, tmp_path / "out" / "p", json_keys=["text"], on_error="fail")
    assert "a.jsonl and 1 more (bad lines were skipped)" in capsys.readouterr().err
    report = run(inputs, tmp_path / "out" / "p", json_keys=["text"])
    assert report.skipped.counts == {"not a string": 3}
    assert report.skipped.firsts["not a string"].startswith(f"{inputs[0]}:6: ")


def test_an_input_that_is_named_twice_is_read_once(tmp_path: Path, inputs: list[Path]) -> None:
    report = run([inputs[0], inputs[1], inputs[0]], tmp_path / "p")
    assert report.inputs == 2
    copy = shutil.copy(inputs[0], tmp_path / "in" / "copy.jsonl")
    run([inputs[0], inputs[1], Path(copy)], tmp_path / "q")
    for suffix in (".bin", ".idx", ".json"):
        assert (tmp_path / f"p_text_document{suffix}").read_bytes() == (
            tmp_path / f"q_text_document{suffix}"
        ).read_bytes()


def test_small_inputs_share_a_part_and_change_nothing(
    tmp_path: Path, inputs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(inputs, tmp_path / "one" / "p")
    monkeypatch.setattr(preprocess_plan, "SMALL_BYTES", 2 * inputs[0].stat().st_size)
    (job,) = preprocess_plan.plan_jobs(inputs, str(tmp_path / "two" / "p"), ["text"], False)
    assert [len(part.inputs) for part in job.parts] == [2, 1]
    run(inputs, tmp_path / "two" / "p")
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_shards_of_others_are_refused_and_own_ones_kept(tmp_path: Path, inputs: list[Path]) -> None:
    out = tmp_path / "out"
    inputs[2].write_bytes(b"{\n")
    with pytest.raises(DataError, match="not valid JSON"):
        run_strictly(inputs, out, shard_per_input=True)
    own = (out / "a_title_document.bin").stat()
    write_input(inputs[2])
    write_input(tmp_path / "other" / "b.jsonl", 2)
    run([tmp_path / "other" / "b.jsonl"], out, json_keys=["title"], shard_per_input=True, overwrite=True)
    with pytest.raises(DataError, match=r"b_title_document.bin \(and 2 more files\) exists already"):
        run_strictly(inputs, out, shard_per_input=True)
    for path in out.glob("b_*"):
        path.unlink()
    assert run_strictly(inputs, out, shard_per_input=True).resumed == 1
    assert (out / "a_title_document.bin").stat() == own
    with pytest.raises(DataError, match=r"a_title_document.bin \(and 8 more files\) exists already"):
        run_strictly(inputs, out, shard_per_input=True)


def test_a_shard_whose_input_changed_is_replaced(tmp_path: Path, inputs: list[Path]) -> None:
    out, good = tmp_path / "out", inputs[2].read_bytes()
    inputs[2].write_bytes(b"{\n")
    with pytest.raises(DataError, match="not valid JSON"):
        run_strictly(inputs, out, shard_per_input=True)
    inputs[2].write_bytes(good)
    write_input(inputs[0], 9)
    assert run_strictly(inputs, out, shard_per_input=True).resumed == 1
    assert IndexedDataset(out / "a_title_document").num_documents == 7
    assert not list(out.glob(".*"))


def test_overwrite_starts_anew_and_goes_on_without(
    tmp_path: Path, inputs: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out" / "p"
    run_strictly(inputs[:1], out)
    good = inputs[2].read_bytes()
    inputs[2].write_bytes(b"{\n")
    for said in (
        "2 of 3 inputs are done and kept: the same command without --overwrite goes on with the rest",
        "--overwrite: 2 inputs that an earlier run completed are tokenized again",
    ):
        with pytest.raises(DataError, match="not valid JSON"):
            run_strictly(inputs, out, overwrite=True)
        assert said in capsys.readouterr().err
    inputs[2].write_bytes(good)
    assert run_strictly(inputs, out).resumed == 2
    assert same_as_at_once(inputs, out)


def test_two_at_once_do_not_disturb_each_other(tmp_path: Path, inputs: list[Path]) -> None:
    command = [sys.executable, str(TOOL), "--tokenizer-type", "ByteTokenizer", "--input", "-"]
    with subprocess.Popen(
        [*command, "--output-prefix", str(tmp_path / "p")], stdin=subprocess.PIPE
    ) as waiting:
        assert waiting.stdin is not None
        wait_until(lambda: any(tmp_path.glob(".p_text_document.parts/*.tmp")))
        for options in ({"overwrite": True}, {}):
            with pytest.raises(DataError, match="another process"):
                run(inputs if options else [Path("-")], tmp_path / "p", json_keys=["text"], **options)
        waiting.stdin.write(b'{"text": "a"}\n')
        waiting.stdin.close()
        assert waiting.wait() == 0
    assert len(list(tmp_path.glob("p_*"))) == 3


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_signals_end_it_and_it_says_how_to_go_on(
    tmp_path: Path, number: signal.Signals, exit_code: int, workers: str
) -> None:
    for name in range(8):
        write_input(tmp_path / "in" / f"{name}.jsonl", 2_000)
    command = ["--input", str(tmp_path / "in"), "--tokenizer-type", "ByteTokenizer", "--json-keys", "title"]
    command += ["--output-prefix", str(tmp_path / "out" / "p"), "--workers", workers]
    process = start(command, tmp_path)
    wait_for_markers(process, tmp_path / "out", 1)
    process.send_signal(number)
    done = finish(process)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (exit_code, "", 1), done.stderr
    assert "of 8 inputs are done and kept: the same command goes on with the rest" in done.stderr
    assert finish(start(command, tmp_path)).returncode == 0
    assert len(list((tmp_path / "out").iterdir())) == 3


@pytest.mark.parametrize("limit", [0, 200, 1000])
def test_a_full_disk_is_one_message_and_leaves_nothing(tmp_path: Path, limit: int) -> None:
    source = write_input(tmp_path / "in" / "a.jsonl", 200)
    command = [sys.executable, str(TOOL), "--input", str(source), "--tokenizer-type", "ByteTokenizer"]
    done = subprocess.run(
        [*command, "--output-prefix", str(tmp_path / "out" / "p"), "--json-keys", "title"],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path}/out/p_title_document: cannot be written: ")
    assert done.stderr.count("\n") == 1
    assert not list((tmp_path / "out").rglob("*"))


def test_help_tells_of_going_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["preprocess", "--help"])
    assert "the same command goes on" in capsys.readouterr().out
