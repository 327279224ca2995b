"""Signals ask a process to stop; in processes of their own, because the last ones end them."""

import signal
import subprocess
import sys

import pytest

PRELUDE = """\
import signal, time
from megatron_ext.train import stop
request = stop.StopRequest()
request.listen()
"""


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + script], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_asks_and_the_process_goes_on(name: str) -> None:
    done = run(
        "before = request.requested\n"
        f"signal.raise_signal(signal.{name})\n"
        "print(before, request.requested, request.agreed)"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "False True False\n", "")


def test_the_echo_of_a_signal_does_not_end_the_process() -> None:
    """Slurm's scancel reaches workers directly and, a moment later, once more through their launcher."""
    again = "signal.raise_signal(signal.SIGTERM)\n"
    done = run(f"{again}{again}signal.raise_signal(signal.SIGINT)\nprint('saved')")
    assert (done.returncode, done.stdout) == (0, "saved\n")


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_who_asks_again_later_is_obeyed_at_once(second: signal.Signals) -> None:
    done = run(
        "stop.ECHO_S = 0.05\nsignal.raise_signal(signal.SIGTERM)\ntime.sleep(0.1)\n"
        f"signal.raise_signal({int(second)})\nprint('still here')"
    )
    assert (done.returncode, done.stdout, done.stderr) == (-second, "", "")
