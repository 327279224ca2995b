"""The command as a process that can be killed: small parts, and none is done in an instant."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[4]
SOURCE = """\
import os
import sys
import time
from megatron_ext.cli.main import run_verb
from megatron_ext.corpus.builder import part_file, parts, spread

finish = part_file.PartWriter.finish

def finish_slowly(self, *rest):
    time.sleep(float(os.environ["SECONDS_A_PART"]))
    return finish(self, *rest)

part_file.PartWriter.finish = finish_slowly  # in workers too, which import this file

if __name__ == "__main__":
    parts.PART_BYTES, spread.BYTES_PER_WORKER = 20_000, 1
    raise SystemExit(run_verb("build-corpus", sys.argv[1:]))
"""


def start(
    arguments: Sequence[str], folder: Path, launcher: Sequence[str] = (), slow: float = 0.0
) -> "subprocess.Popen[str]":
    """Start it, with a file in ``folder`` for its source; every part takes ``slow`` seconds more."""
    source = folder / "build_in_parts.py"
    source.write_text(SOURCE)
    paths = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": paths, "SECONDS_A_PART": str(slow)}
    return subprocess.Popen(
        [*launcher, sys.executable, str(source), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: "subprocess.Popen[str]") -> subprocess.CompletedProcess[str]:
    """Wait for its end."""
    with process:
        out, said = process.communicate(timeout=240)
    return subprocess.CompletedProcess(process.args, process.returncode, out, said)


def wait_for_parts(process: "subprocess.Popen[str]", output: Path, number: int) -> None:
    """Wait until so many parts are complete, or there is nothing to wait for."""
    folder = output / ".build" / "parts"
    wait_until(lambda: process.poll() is not None or len(list(folder.glob("*.json"))) >= number)


def wait_until(condition: Callable[[], bool]) -> None:
    """Look again and again, for two minutes at most."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except FileNotFoundError:  # a folder went while it was listed
            pass
        time.sleep(0.002)
    raise TimeoutError
