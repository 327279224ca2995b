"""A polite end: signals ask, all ranks agree, the run saves and leaves."""

import signal
import time
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""What schedulers and people send: SIGUSR1 is Slurm's usual warning before the time limit."""

ECHO_S = 2.0
"""Slurm signals launcher and workers alike, and the launcher passes it on: one wish arrives twice within moments."""


class StopRequest:
    """Whether this process was asked to stop, and whether all processes have agreed to."""

    def __init__(self) -> None:
        self.requested = False
        self.agreed = False
        self._requested_at = 0.0

    def listen(self) -> None:
        """Turn the signals into a request; another one more than ``ECHO_S`` later ends the process at once."""
        for number in SIGNALS:
            signal.signal(number, self._request)

    def _request(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.requested:
            self.requested, self._requested_at = True, now
        elif now - self._requested_at > ECHO_S:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
