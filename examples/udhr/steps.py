"""Commands one after the other, as a person would type them: printed, run, and not run again once they are done."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]


class Step(NamedTuple):
    """A command, what it is for, and how to see that it is done."""

    title: str
    command: str
    done: Callable[[], bool]


def exists(path: str) -> Callable[[], bool]:
    """Whether ``path`` is there; what makes it gives it that name only when it is complete."""
    return (ROOT / path).exists


def run_steps(steps: Sequence[Step], report: Callable[[], None]) -> None:
    """Run what is not done yet, then report. Ends the process with the exit code of a command that fails."""
    os.chdir(ROOT)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    began = time.monotonic()
    for number, step in enumerate(steps, start=1):
        print(f"\n== {number}. {step.title}\n$ {step.command}", flush=True)
        if step.done():
            print("already done", flush=True)
            continue
        # The shell expands the *.jsonl, as it does for a person who types the line.
        code = subprocess.run(step.command, shell=True, check=False).returncode  # noqa: S602 - our own text
        if code:
            raise SystemExit(code)
    print(f"\n== {len(steps) + 1}. What came of it", flush=True)
    report()
    print(f"\ndone in {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
