"""A polite end: signals ask, all ranks agree, the run saves and leaves."""

import signal
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""What schedulers and people send: SIGUSR1 is Slurm's usual warning before the time limit."""


class StopRequest:
    """Whether this process was asked to stop, and whether all processes have agreed to."""

    def __init__(self) -> None:
        self.requested = False
        self.agreed = False

    def listen(self) -> None:
        """Turn the signals into a request; a second one of the same kind ends the process at once."""
        for number in SIGNALS:
            signal.signal(number, self._request)

    def _request(self, number: int, _frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(number, signal.SIG_DFL)
