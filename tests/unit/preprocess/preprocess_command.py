"""The command as a process that can be killed: each input is a part of its own, and none is done in an instant."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[3]
SOURCE = """\
import sys
import time
from megatron_ext.cli.main import run_verb
from megatron_ext.data import preprocess_plan, preprocess_write

finish_part = preprocess_write.finish_part

def finish_slowly(*part):
    marker = finish_part(*part)
    time.sleep(0.2)
    return marker

if __name__ == "__main__":
    preprocess_plan.SMALL_BYTES = 0
    preprocess_write.finish_part = finish_slowly
    raise SystemExit(run_verb("preprocess", sys.argv[1:]))
"""


def start(arguments: Sequence[str], folder: Path, launcher: Sequence[str] = ()) -> "subprocess.Popen[str]":
    """Start it, with a file in ``folder`` for its source."""
    source = folder / "preprocess_in_parts.py"
    source.write_text(SOURCE)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
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
        out, said = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, out, said)


def wait_for_markers(process: "subprocess.Popen[str]", folder: Path, number: int) -> None:
    """Wait until so many parts are complete, or there is nothing to wait for."""
    wait_until(lambda: process.poll() is not None or len(list(folder.glob(".*.parts/*.done"))) >= number)


def wait_until(condition: Callable[[], bool]) -> None:
    """Look again and again, for a minute at most."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except FileNotFoundError:  # a folder went while it was listed
            pass
        time.sleep(0.002)
    raise TimeoutError
