"""What a person sees: one rich console on standard error, log lines from rank 0, and a progress bar."""

import contextlib
import datetime
import logging
import os
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column

PLAIN_LINE_INTERVAL_S = 10.0
BAR_WIDTH = 16  # so that 80 columns hold the figures and the beginning of the note

console = Console(stderr=True, soft_wrap=True)


def global_rank() -> int:
    """Rank of this process in whatever launched it; 0 outside a launcher."""
    for name in ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID"):
        if name in os.environ:
            return int(os.environ[name])
    return 0


def get_logger(name: str) -> logging.Logger:
    """A logger that prints from rank 0 only, warnings and worse from every rank."""
    logger = logging.getLogger(name)
    root = logging.getLogger("megatron_ext")
    if not root.handlers:
        root.addHandler(_ConsoleHandler())
        root.setLevel(logging.INFO if global_rank() == 0 else logging.WARNING)
        root.propagate = False
    return logger


class _ConsoleHandler(logging.Handler):
    """Through the console, so that a line does not cut a progress bar; the text as it is, never wrapped."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        console.print(f"{level}{self.format(record)}", markup=False, highlight=False)


@contextlib.contextmanager
def progress(
    description: str, total: int | None, unit: str, done: int = 0
) -> Iterator[Callable[[int, str], None]]:
    """A bar on a terminal, a plain line every few seconds elsewhere, nothing on other ranks.

    Args:
        description: what is going on.
        total: amount of ``unit`` in the end, if it is known.
        unit: a plural; ``bytes`` are shown as kB, MB, GB, with their speed.
        done: what was done before, which counts for the fraction and not for the speed.

    Yields:
        ``advance(amount, note)``: adds ``amount`` of ``unit`` and replaces the note behind the bar.
    """
    if global_rank() != 0:
        yield lambda _amount, _note: None
    elif console.is_terminal:
        amount: list[ProgressColumn] = (
            [DownloadColumn(), TransferSpeedColumn()]
            if unit == "bytes"
            else [MofNCompleteColumn(), TextColumn(unit)]
        )
        rest_of_line = Column(ratio=1, no_wrap=True, overflow="ellipsis")
        note_column = TextColumn("{task.fields[note]}", markup=False, table_column=rest_of_line)
        columns = [TextColumn("{task.description}"), BarColumn(BAR_WIDTH), TaskProgressColumn(), *amount]
        with Progress(*columns, TimeRemainingColumn(), note_column, console=console, expand=True) as bar:
            task = bar.add_task(description, total=total, completed=done, note="")
            yield lambda amount, note: bar.update(task, advance=amount, note=note)
    else:
        yield _PlainProgress(description, total, unit, done).advance


class _PlainProgress:
    def __init__(self, description: str, total: int | None, unit: str, done: int) -> None:
        self.description, self.total, self.unit = description, total, unit
        self.before = self.done = done
        self.started = self.last = time.monotonic()

    def advance(self, amount: int, note: str) -> None:
        self.done += amount
        now = time.monotonic()
        if now - self.last >= PLAIN_LINE_INTERVAL_S:
            self.last = now
            line = f"{self.description}: {self._fraction()}, {self._speed(now - self.started)}, {note}"
            console.print(line, markup=False, highlight=False)

    def _fraction(self) -> str:
        if self.total is None:
            return self._shown(self.done)
        done = self._shown(self.done).removesuffix(f" {self.unit}")
        return f"{100 * self.done // max(self.total, 1)} %, {done} of {self._shown(self.total)}"

    def _speed(self, seconds: float) -> str:
        speed = (self.done - self.before) / seconds
        if self.total is None or speed <= 0:
            return f"{self._shown(int(speed))}/s"
        left = datetime.timedelta(seconds=int(max(self.total - self.done, 0) / speed))
        return f"{self._shown(int(speed))}/s, {left} left"

    def _shown(self, amount: int) -> str:
        return decimal(amount) if self.unit == "bytes" else f"{amount:,} {self.unit}"
