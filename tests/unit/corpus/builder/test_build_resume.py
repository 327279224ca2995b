"""Kills, errors and changes in between: what comes out in the end is what one run makes."""

import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from build_command import finish, start, wait_for_parts, wait_until
from corpus_sources import LANGUAGES, sample_rows, write_jsonl, write_manifest

from megatron_ext.cli.main import main
from megatron_ext.corpus.builder import build, parts
from megatron_ext.corpus.builder.build import build_corpus
from megatron_ext.corpus.manifest import read_manifest
from megatron_ext.errors import CorpusError

BIN = str(Path(sys.executable).parent)
MPIRUN = shutil.which("mpirun", path=f"{BIN}{os.pathsep}{os.environ['PATH']}")


class Killed(BaseException):
    """Stands for a kill."""


def write_sources(folder: Path) -> Path:
    rows = [{"text": row["text"], "lang": row["iso639_3"]} for row in sample_rows(*LANGUAGES)]
    half = len(rows) // 2
    write_jsonl(folder / "in" / "a.jsonl", rows[:half])
    write_jsonl(folder / "in" / "b.jsonl", rows[half:] + rows[:5])
    source = {"name": "web", "files": str(folder / "in"), "language": {"field": "lang"}}
    return write_manifest(folder, [source], shards={"max_bytes": 30_000}, validation={"share": 0.1})


def content(folder: Path) -> dict[str, bytes | Any]:
    """All files below; of corpus.json what does not depend on where the sources lie."""
    found: dict[str, bytes | Any] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = path.read_bytes()
    corpus = json.loads(found.pop("corpus.json"))
    return {
        **found,
        "counts": {key: value for key, value in corpus.items() if key not in ("manifest", "digest")},
    }


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("undisturbed")
    build_corpus(read_manifest(write_sources(folder)), workers=1)
    return content(folder / "corpus")


@pytest.mark.parametrize("seed", [0, 1])
def test_kills_at_any_moment_change_nothing_in_the_end(
    tmp_path: Path, expected: dict[str, Any], seed: int
) -> None:
    draw = random.Random(seed)
    manifest, output = write_sources(tmp_path), tmp_path / "corpus"
    for workers, wanted in ((1, draw.randint(1, 4)), (2, draw.randint(5, 8))):
        process = start([str(manifest), "--workers", str(workers)], tmp_path, slow=0.1)
        wait_for_parts(process, output, wanted)
        process.send_signal(signal.SIGKILL)
        finish(process)
        assert not (output / "corpus.json").exists()
        assert not (output / "text").exists()
    done = finish(start([str(manifest), "--workers", "2"], tmp_path))
    assert done.returncode == 0, done.stderr
    assert "parts were made by an earlier run" in done.stderr
    assert content(output) == expected


@pytest.mark.parametrize(
    "step", ["take_account", "find_duplicates", "decide", "plan_shards", "write_shard", "publish"]
)
def test_a_kill_at_any_step_changes_nothing_in_the_end(
    tmp_path: Path, expected: dict[str, Any], step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_manifest(write_sources(tmp_path))
    wrapped: Callable[..., Any] = getattr(build, step)
    calls = []

    def killed_in_the_end(*arguments: Any) -> Any:
        calls.append(step)
        if step != "publish":
            wrapped(*arguments)
        if step != "write_shard" or len(calls) >= 3:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(build, step, killed_in_the_end)
        with pytest.raises(Killed):
            build_corpus(manifest, workers=1)
    assert calls
    assert not (tmp_path / "corpus" / "corpus.json").exists()
    for folder in (tmp_path / "corpus" / ".build").rglob("mono"):  # what a kill leaves of a shard
        (folder / ".eng_Latn-00000.jsonl.zst.x.tmp").write_bytes(b"half")
    report = build_corpus(manifest, workers=1)
    assert report.resumed == report.parts
    assert content(tmp_path / "corpus") == expected


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_end_it_and_it_says_how_to_go_on(tmp_path: Path, number: signal.Signals, code: int) -> None:
    manifest = write_sources(tmp_path)
    process = start([str(manifest), "--workers", "2"], tmp_path, slow=0.2)
    wait_for_parts(process, tmp_path / "corpus", 2)
    process.send_signal(number)
    done = finish(process)
    assert done.returncode == code, done.stderr
    assert "parts are done and kept: the same command goes on" in done.stderr
    assert "Traceback" not in done.stderr


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    process = start([str(write_sources(tmp_path)), "--workers", "2"], tmp_path, slow=0.2)
    wait_for_parts(process, tmp_path / "corpus", 1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) >= 2
    process.kill()
    finish(process)
    wait_until(lambda: not any(Path(f"/proc/{child}/cmdline").exists() for child in children))


def test_only_what_changed_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: dict[str, Any]
) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", 20_000)
    path = write_sources(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(build, "publish", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            build_corpus(read_manifest(path), workers=1)
    first = len(list((tmp_path / "corpus" / ".build" / "parts").glob("*.json")))
    changed = tmp_path / "in" / "b.jsonl"
    before = changed.read_bytes()
    changed.write_bytes(b"\n" + before)
    report = build_corpus(read_manifest(path), workers=1)
    assert 0 < report.resumed < report.parts == first
    assert content(tmp_path / "corpus") == expected


def test_an_error_keeps_what_is_done_and_without_anything_done_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "PART_BYTES", 20_000)
    path = write_sources(tmp_path)
    bad = tmp_path / "in" / "b.jsonl"
    good = bad.read_bytes()
    bad.write_bytes(good + b"{\n")
    lines = good.count(b"\n") + 1
    with pytest.raises(CorpusError, match=rf"^source web: .*b\.jsonl:{lines}: not valid JSON"):
        build_corpus(read_manifest(path), workers=1)
    assert [one.name for one in (tmp_path / "corpus").iterdir()] == [".build"]
    bad.write_bytes(good)
    assert build_corpus(read_manifest(path), workers=1).resumed > 0
    shutil.rmtree(tmp_path / "corpus")
    (tmp_path / "in" / "a.jsonl").write_bytes(b"{\n")
    with pytest.raises(CorpusError, match=r"^source web: .*a\.jsonl:1: not valid JSON"):
        build_corpus(read_manifest(path), workers=1)
    assert not (tmp_path / "corpus").exists()


def test_another_corpus_is_replaced_only_when_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write_sources(tmp_path))
    assert main(["build-corpus", path, "--tokenizer-type", "ByteTokenizer", "--workers", "1"]) == 0
    before = content(tmp_path / "corpus")
    changed = tmp_path / "in" / "b.jsonl"
    changed.write_bytes(changed.read_bytes().splitlines(keepends=True)[0])
    capsys.readouterr()
    assert main(["build-corpus", path, "--workers", "1"]) == 2
    assert "corpus.json exists already, built from another manifest or other files" in capsys.readouterr().err
    assert content(tmp_path / "corpus") == before
    assert main(["build-corpus", path, "--workers", "1", "--overwrite"]) == 0
    after = content(tmp_path / "corpus")
    assert after != before
    assert not [name for name in after if name.startswith("data/")]  # of the text before


@pytest.mark.launchers
@pytest.mark.skipif(MPIRUN is None, reason="no mpirun")
def test_ranks_make_what_one_process_makes(tmp_path: Path, expected: dict[str, Any]) -> None:
    pytest.importorskip("mpi4py")
    launcher = [str(MPIRUN), "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", "2"]
    arguments = [str(write_sources(tmp_path)), "--workers", "1", "--tokenizer-type", "ByteTokenizer"]
    done = finish(start(arguments, tmp_path, launcher))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("documents read") == 1
    found = content(tmp_path / "corpus")
    text = {name: value for name, value in found.items() if name.startswith("text/")}
    assert text == {name: value for name, value in expected.items() if name.startswith("text/")}
    assert any(name.endswith(".bin") for name in found)


@pytest.mark.launchers
@pytest.mark.skipif(MPIRUN is None, reason="no mpirun")
def test_an_error_on_one_rank_is_said_once(tmp_path: Path) -> None:
    pytest.importorskip("mpi4py")
    manifest = write_sources(tmp_path)
    for name in ("a", "b"):
        path = tmp_path / "in" / f"{name}.jsonl"
        path.write_bytes(path.read_bytes() + b"{\n")
    launcher = [str(MPIRUN), "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", "2"]
    done = finish(start([str(manifest), "--workers", "1"], tmp_path, launcher))
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("error: ") == 1
    assert "source web: " in done.stderr
    assert "Traceback" not in done.stderr
