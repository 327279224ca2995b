"""One step of the work over all ranks, and in each over worker processes, under one progress bar.

Several machines are joined by MPI, as in preprocessing: it is what clusters that train with megatron-core have, it
starts with the job and ends with it, and a step needs no more than a list of tasks dealt out beforehand and a barrier
behind it. Ray and datatrove's Slurm executor also bring services or job scripts of their own, and a second way to
resume beside the files that are complete here.
"""

import collections
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from megatron_ext.corpus.builder.workers import Work, results
from megatron_ext.data.preprocess_plan import AnyPart, share_parts
from megatron_ext.data.preprocess_ranks import Progress, Ranks
from megatron_ext.utils.console import progress

BYTES_PER_WORKER = 8 << 20  # a process takes longer to start than to work through less than this
THREADS_PER_CORE = 4  # most of them wait for the disk

State = TypeVar("State")


def spread(
    ranks: Ranks,
    work: Work[State, AnyPart, None],
    tasks: Sequence[AnyPart],
    *,
    workers: int | None,
    description: str,
    size: Callable[[AnyPart], int],
    done: int = 0,
) -> None:
    """Let each rank do its share of the tasks; all call this.

    Args:
        ranks: the processes of the job.
        work: what is done with a task; what it makes is on disk.
        tasks: all that are left to do.
        workers: processes in each rank, fewer where there is little to do; default: all cores.
        description: what is going on.
        size: bytes that a task reports in the end.
        done: bytes of tasks that were done before.

    Raises:
        MegatronExtError: on rank 0, what went wrong on any.
        EndedByAnotherRankError: on the others, then.
    """
    share = share_parts(tasks, ranks.size)[ranks.rank]
    useful = min(workers or ranks.cores, 1 + sum(task.load for task in share) // BYTES_PER_WORKER)
    if work.in_threads:
        useful = THREADS_PER_CORE * (workers or ranks.cores)
    with progress(description, done + sum(map(size, tasks)), "bytes", done=done) as advance:
        meter = _Meter(advance, ranks.add(Progress()))

        def report(num_bytes: int, documents: int) -> None:
            meter.show(ranks.add(Progress(num_bytes, 0, documents)))

        def do_share() -> None:
            collections.deque(results(work, share, useful, report), maxlen=0)

        ranks.each(do_share, meter.show)


class _Meter:
    """Moves the progress bar to what all ranks have done since the step began."""

    def __init__(self, advance: Callable[[int, str], None], before: Progress) -> None:
        self._advance, self._before, self._shown = advance, before, before.file_bytes
        self._started = time.monotonic()

    def show(self, done: Progress) -> None:
        documents = done.documents - self._before.documents
        rate = documents / max(time.monotonic() - self._started, 1e-9)
        self._advance(done.file_bytes - self._shown, f"{documents:,} documents, {rate:,.0f} a second")
        self._shown = done.file_bytes
