"""Seconds of work, without the pauses."""

import contextlib
import time
from collections.abc import Callable, Iterator


class Stopwatch:
    """Counts wall-clock seconds since the last lap, pauses left out.

    Args:
        synchronize: waits until queued device work is done; called whenever the clock is read.
    """

    def __init__(self, synchronize: Callable[[], None]) -> None:
        self._synchronize = synchronize
        self._start = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last lap; the next one starts now."""
        self._synchronize()
        now = time.perf_counter()
        seconds, self._start = now - self._start, now
        return seconds

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time inside the block out."""
        self._synchronize()
        before = time.perf_counter()
        yield
        self._synchronize()
        self._start += time.perf_counter() - before
