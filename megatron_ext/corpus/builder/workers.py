"""Tasks in worker processes, with their progress and an end at any time.

Processes because a task is Python as much as C++; one thread each. Each keeps a state of its own (tables, models),
which is built once. Fresh processes (spawn): forking one that MPI or a library with threads lives in can hang.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Generic, NamedTuple, TypeVar

from megatron_ext.errors import CorpusError

POLL_INTERVAL_S = 0.2

State = TypeVar("State")
Task = TypeVar("Task")
Result = TypeVar("Result")
Advance = Callable[[int, int], None]  # bytes and documents done since the last call


class StoppedError(Exception):
    """In a worker: nobody waits for the result any more."""


class Work(NamedTuple, Generic[State, Task, Result]):
    """What workers do.

    Attributes:
        build: makes a worker's state; of a module, as ``do``, so that it travels.
        settings: its argument.
        do: makes the result of a task, and says how far it is now and then.
    """

    build: Callable[[Any], State]
    settings: Any
    do: Callable[[State, Task, Advance], Result]


def results(
    work: Work[State, Task, Result], tasks: Sequence[Task], workers: int, report: Advance
) -> Generator[tuple[Task, Result]]:
    """Each task with its result, in the order in which they end; in this process where one worker is enough.

    Args:
        work: what to do.
        tasks: of these.
        workers: processes.
        report: called in this process with the progress of all; may raise to end the work.

    Raises:
        CorpusError: what a worker raised, or that one died.
    """
    if workers == 1 or len(tasks) <= 1:
        state = work.build(work.settings)
        for task in tasks:
            yield task, work.do(state, task, report)
        return
    context = multiprocessing.get_context("spawn")
    done, stop = context.Array("q", 2), context.Event()
    pool = ProcessPoolExecutor(
        min(workers, len(tasks)), context, initializer=_start, initargs=(work, done, stop)
    )
    try:
        futures: dict[Future[Result], Task] = {pool.submit(_do, task): task for task in tasks}
        pending = set(futures)
        reported = [0, 0]
        while pending:
            finished, pending = wait(pending, POLL_INTERVAL_S, FIRST_COMPLETED)
            now = done[:]
            report(now[0] - reported[0], now[1] - reported[1])
            reported = now
            for future in finished:
                yield futures.pop(future), future.result()
    except BrokenProcessPool as error:
        raise CorpusError(
            "a worker process died (out of memory?); what is complete is kept: the same command goes on, perhaps "
            "with fewer --workers"
        ) from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


class _Worker(NamedTuple):
    work: Work[Any, Any, Any]
    state: Any
    advance: Advance


_worker: list[_Worker] = []  # one in each process: a state cannot travel with every task


def _start(work: Work[Any, Any, Any], done: Any, stop: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent's to handle
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def advance(num_bytes: int, documents: int) -> None:
        if stop.is_set():
            raise StoppedError
        with done.get_lock():
            done[0] += num_bytes
            done[1] += documents

    _worker.append(_Worker(work, work.build(work.settings), advance))


def _end_with_parent() -> None:
    """A parent that was killed leaves its workers waiting for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        with contextlib.suppress(KeyboardInterrupt):
            parent.join()
        os._exit(1)


def _do(task: Any) -> Any:
    worker = _worker[0]
    return worker.work.do(worker.state, task, worker.advance)
