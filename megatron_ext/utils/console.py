"""What a person sees: one rich console on standard error, log lines from rank 0, and a progress bar."""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_LINE_INTERVAL_S = 10.0

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
def progress(description: str, total: int | None, unit: str) -> Iterator[Callable[[int, str], None]]:
    """A bar on a terminal, a plain line every few seconds elsewhere, nothing on other ranks.

    Yields:
        ``advance(amount, note)``: adds ``amount`` of ``unit`` and replaces the note behind the bar.
    """
    if global_rank() != 0:
        yield lambda _amount, _note: None
    elif console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
        with Progress(
            *columns, TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=console
        ) as bar:
            task = bar.add_task(description, total=total, note="")
            yield lambda amount, note: bar.update(task, advance=amount, note=note)
    else:
        yield _PlainProgress(description, total, unit).advance


class _PlainProgress:
    def __init__(self, description: str, total: int | None, unit: str) -> None:
        self.description, self.total, self.unit = description, total, unit
        self.done, self.last = 0, time.monotonic()

    def advance(self, amount: int, note: str) -> None:
        self.done += amount
        now = time.monotonic()
        if now - self.last >= PLAIN_LINE_INTERVAL_S:
            self.last = now
            of_total = f"/{self.total:,}" if self.total is not None else ""
            console.print(f"{self.description}: {self.done:,}{of_total} {self.unit} {note}")
