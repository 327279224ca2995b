"""Projects to break: before the first run, and with a run that was stopped."""

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from project_folder import ROOT, RUN_YAML, Project, Stopped

from megatron_ext.data.preprocess import preprocess

FIRST_STEP_TIMEOUT_S = 120.0


@pytest.fixture(scope="session")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("project")
    texts = [f"All human beings are born free and equal, number {number}." for number in range(50)]
    rows = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (folder / "corpus.jsonl").write_text(rows, encoding="utf-8")
    preprocess(
        [folder / "corpus.jsonl"],
        str(folder / "data"),
        tokenizer_type="ByteTokenizer",
        append_eod=True,
        workers=1,
    )
    (folder / "run.yaml").write_text(RUN_YAML, encoding="utf-8")
    return Project(folder)


@pytest.fixture
def project(origin: Project, tmp_path: Path) -> Project:
    """A project before its first run."""
    return Project(shutil.copytree(origin.folder, tmp_path / "project"))


@pytest.fixture(scope="session")
def stopped(origin: Project, tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    """A run of two processes whose launcher was sent SIGTERM after the first step."""
    folder = shutil.copytree(origin.folder, tmp_path_factory.mktemp("stopped") / "project")
    metrics = folder / "run/metrics.jsonl"
    with (folder / "output").open("w+", encoding="utf-8") as output:
        process = subprocess.Popen(
            [str(ROOT / "launch.sh"), "run.yaml"], cwd=folder, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            give_up = time.monotonic() + FIRST_STEP_TIMEOUT_S
            while not (metrics.is_file() and metrics.stat().st_size) and process.poll() is None:
                assert time.monotonic() < give_up, "no step was made"
                time.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            exit_code = process.wait(timeout=120)
        finally:
            process.terminate()
        output.seek(0)
        return Stopped(Project(folder), exit_code, output.read())


@pytest.fixture
def with_checkpoint(stopped: Stopped, tmp_path: Path) -> Project:
    """A project whose run was stopped after a few steps."""
    return Project(shutil.copytree(stopped.project.folder, tmp_path / "project"))
