"""Tasks in worker processes or threads, with their progress and an end at any time.

Processes where a task is Python as much as C++; each keeps a state of its own (tables, models), which is built once.
Fresh ones (spawn): forking a process that MPI or a library with threads lives in can hang. Threads where a task
waits for the disk and for libraries that let others run meanwhile.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
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
        in_threads: whether all workers share a state, and this process.
    """

    build: Callable[[Any], State]
    settings: Any
    do: Callable[[State, Task, Advance], Result]
    in_threads: bool = False


class _Pool(NamedTuple):
    submit: Callable[[Any], Future[Any]]
    done: Callable[[], tuple[int, int]]  # bytes and documents so far


def results(
    work: Work[State, Task, Result], tasks: Sequence[Task], workers: int, report: Advance
) -> Generator[tuple[Task, Result]]:
    """Each task with its result, in the order in which they end; one by one where one worker is enough.

    Args:
        work: what to do.
        tasks: of these.
        workers: processes or threads.
        report: called in this thread with the progress of all; may raise to end the work.

    Raises:
        CorpusError: what a worker raised, or that one died.
    """
    if workers == 1 or len(tasks) <= 1:
        state = work.build(work.settings)
        for task in tasks:
            yield task, work.do(state, task, report)
        return
    with (_threads if work.in_threads else _processes)(work, min(workers, len(tasks))) as pool:
        futures: dict[Future[Result], Task] = {pool.submit(task): task for task in tasks}
        pending, reported = set(futures), (0, 0)
        while pending:
            finished, pending = wait(pending, POLL_INTERVAL_S, FIRST_COMPLETED)
            now = pool.done()
            report(now[0] - reported[0], now[1] - reported[1])
            reported = now
            for future in finished:
                yield futures.pop(future), future.result()


@contextlib.contextmanager
def _threads(work: Work[Any, Any, Any], workers: int) -> Iterator[_Pool]:
    state, lock, stop, done = work.build(work.settings), threading.Lock(), threading.Event(), [0, 0]
    advance = _advance(done, lock, stop)
    pool = ThreadPoolExecutor(workers)
    try:
        yield _Pool(lambda task: pool.submit(work.do, state, task, advance), lambda: (done[0], done[1]))
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _processes(work: Work[Any, Any, Any], workers: int) -> Iterator[_Pool]:
    context = multiprocessing.get_context("spawn")
    done, stop = context.Array("q", 2), context.Event()
    pool = ProcessPoolExecutor(workers, context, initializer=_start, initargs=(work, done, stop))
    try:
        yield _Pool(lambda task: pool.submit(_do, task), lambda: (done[0], done[1]))
    except BrokenProcessPool as error:
        raise CorpusError(
            "a worker process died (out of memory?); what is complete is kept: the same command goes on, perhaps "
            "with fewer --workers"
        ) from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _advance(done: Any, lock: Any, stop: Any) -> Advance:
    """Adds to what all have done, and ends a task that nobody waits for."""

    def advance(num_bytes: int, documents: int) -> None:
        if stop.is_set():
            raise StoppedError
        with lock:
            done[0] += num_bytes
            done[1] += documents

    return advance


class _Worker(NamedTuple):
    work: Work[Any, Any, Any]
    state: Any
    advance: Advance


_worker: list[_Worker] = []  # one in each process: a state cannot travel with every task


def _start(work: Work[Any, Any, Any], done: Any, stop: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent's to handle
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    advance = _advance(done, done.get_lock(), stop)
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
