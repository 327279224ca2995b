"""How the benchmarks measure: ours and the peer's in turn, the best of several, start-up in fresh processes."""

import multiprocessing
import platform
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

REPEATS = 3
Result = TypeVar("Result")


@dataclass(frozen=True)
class Figure:
    """One line of the table: the same work done by both."""

    name: str
    unit: str  # "s", "ms", "MB", or a rate such as "samples/s"
    ours: float
    theirs: float

    @property
    def ratio(self) -> float:
        """How many times better ours is."""
        return self.ours / self.theirs if self.unit.endswith("/s") else self.theirs / self.ours


def seconds(work: Callable[[], object]) -> float:
    """How long one run takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turn(
    ours: Callable[[], object], theirs: Callable[[], object], repeats: int = REPEATS
) -> tuple[float, float]:
    """Seconds of both, each the best of ``repeats`` runs, one after the other so that both meet the same noise."""
    times = [(seconds(ours), seconds(theirs)) for _ in range(repeats)]
    return min(mine for mine, _ in times), min(other for _, other in times)


def rates(
    name: str, unit: str, amount: int, ours: Callable[[], object], theirs: Callable[[], object]
) -> Figure:
    """A figure of ``amount`` per second."""
    mine, other = in_turn(ours, theirs)
    return Figure(name, unit, amount / mine, amount / other)


@dataclass(frozen=True)
class Start:
    """What it takes a fresh process, its imports done, until something is there."""

    seconds: float
    megabytes: float  # by which the largest resident size exceeds that before


def fresh(work: Callable[..., object], *arguments: object, before: Callable[[], None] | None = None) -> Start:
    """Measure a module-level function in a process of its own, after ``before`` has run there."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        if before is not None:
            pool.apply(before)
        return pool.apply(_measured, (work, arguments))


def best(starts: list[Start]) -> Start:
    """The least of each measure."""
    return Start(min(start.seconds for start in starts), min(start.megabytes for start in starts))


def _measured(work: Callable[..., object], arguments: tuple[object, ...]) -> Start:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the largest size so far
    before = process_megabytes("VmRSS")
    took = seconds(lambda: work(*arguments))
    return Start(took, process_megabytes("VmHWM") - before)


def process_megabytes(key: str, process: int | str = "self") -> float:
    """A size in ``/proc/PID/status``, such as ``VmHWM``."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines()
    line = next(line for line in lines if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024 / 1e6


def cpu() -> str:
    """Name of the processor."""
    information = Path("/proc/cpuinfo")
    names = (
        re.findall(r"model name\s*: (.*)", information.read_text(encoding="utf-8"))
        if information.exists()
        else []
    )
    return names[0] if names else platform.machine()
