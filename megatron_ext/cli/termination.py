"""Long work that can be stopped and shared: SIGTERM is Ctrl-C, and MPI's other ranks leave the word to rank 0."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType

from megatron_ext.data.preprocess_ranks import EndedByAnotherRankError
from megatron_ext.utils.console import global_rank


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends the work as Ctrl-C does, under its own exit code."""

    exit_code = 128 + signal.SIGTERM


def run_resumable(work: Callable[[], Callable[[], str]]) -> int:
    """Run work that the same command goes on with after a stop, on any number of MPI's ranks.

    Args:
        work: does it, and returns what tells of it; that is asked, and printed, on rank 0.

    Returns:
        The exit code.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # --workers is the only parallelism, also in this process
    try:
        with _sigterm_interrupts():
            told = work()
    except Terminated as error:
        return error.exit_code
    except EndedByAnotherRankError:
        return 0  # the job's exit code is rank 0's
    if global_rank() == 0:
        print(told())
    return 0


@contextlib.contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM raise `Terminated` inside the block."""
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise Terminated
