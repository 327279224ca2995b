"""Processes of one preprocessing job: this one alone, or all ranks that an MPI launcher started.

Every rank calls the same functions in the same order. While they work, the others tell rank 0 how far they are
and of errors, and rank 0 tells them to stop, so that nobody works on for hours beside an error.
"""

import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self, TypeVar

from megatron_ext.errors import DataError, LaunchError, MegatronExtError, MissingDependencyError
from megatron_ext.launch.environment import ProcessEnvironment

NEWS_INTERVAL_S = 0.5  # between two messages of a rank at work
POLL_INTERVAL_S = 0.1
FORWARDED_S, RANK_0_ENDS_S = 0.5, 5.0
GO, STOP = "go", "stop"  # what rank 0 says to the others: all have ended; one has failed, so end

T = TypeVar("T")


class EndedByAnotherRankError(Exception):
    """Another rank found an error, which rank 0 raises: this rank has nothing to add."""


class Progress(NamedTuple):
    """What was done since the start."""

    file_bytes: int = 0
    tokens: int = 0
    documents: int = 0


class Ranks(Protocol):
    """The processes of a job, as a context for what they do together."""

    rank: int
    size: int
    cores: int  # for this process

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def each(self, action: Callable[[], T], show: Callable[[Progress], None] = ...) -> T:
        """Let every rank do something, and return its own result when all have done it.

        Raises:
            MegatronExtError: on rank 0, what the first of the ranks raised.
            EndedByAnotherRankError: on the others, then.
        """

    def gather(self, value: T) -> list[T]:
        """Values of all ranks, in their order."""

    def add(self, done: Progress) -> Progress:
        """Count work, and return that of all ranks, as far as it is known.

        Raises:
            EndedByAnotherRankError: another rank failed.
        """


def first(ranks: Ranks, action: Callable[[], T]) -> T:
    """What rank 0 makes of ``action``, for all; errors as in `Ranks.each`."""
    found = ranks.each(lambda: [action()] if ranks.rank == 0 else [])
    return ranks.gather(found)[0][0]


class OneProcess:
    """No other ranks."""

    rank = 0
    size = 1

    def __init__(self) -> None:
        self.cores = len(os.sched_getaffinity(0))
        self._done = Progress()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to end."""

    def each(self, action: Callable[[], T], show: Callable[[Progress], None] = lambda _: None) -> T:  # noqa: ARG002
        """As in `Ranks`."""
        return action()

    def gather(self, value: T) -> list[T]:
        """As in `Ranks`."""
        return [value]

    def add(self, done: Progress) -> Progress:
        """As in `Ranks`."""
        self._done = _sum(self._done, done)
        return self._done


class _News(NamedTuple):
    """What a rank sends to rank 0: now and then while it works, and when its work ended."""

    rank: int
    done: Progress  # since its last news
    ended: bool = False
    failure: str | None = None


class MpiRanks:
    """All processes of ``mpirun`` or of an ``srun`` that speaks its MPI."""

    def __init__(self, mpi: Any) -> None:
        """Meet the others.

        Args:
            mpi: ``mpi4py.MPI``.
        """
        self._any_rank, self._world = mpi.ANY_SOURCE, mpi.COMM_WORLD
        self.rank: int = self._world.Get_rank()
        self.size: int = self._world.Get_size()
        self.cores = self._own_cores()
        self._done, self._unsent, self._last = Progress(), Progress(), 0.0
        self._sending: Any = None
        self._working = self.size - 1  # others whose work has not ended, as rank 0 knows
        self._failures: dict[int, str] = {}  # by rank; ranks other than 0 know only that there is one

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all ranks at once if something came up that they did not agree on."""
        if error is None or isinstance(error, MegatronExtError | EndedByAnotherRankError):
            return
        if isinstance(error, Exception):
            traceback.print_exception(kind, error, trace)
        else:  # an interruption, mostly of all ranks: rank 0 said how to go on, which the launcher passes on
            time.sleep(FORWARDED_S if self.rank == 0 else RANK_0_ENDS_S)
        sys.stdout.flush()
        sys.stderr.flush()
        self._world.Abort(getattr(error, "exit_code", 1 if isinstance(error, Exception) else 130))

    def each(self, action: Callable[[], T], show: Callable[[Progress], None] = lambda _: None) -> T:
        """As in `Ranks`; ``show`` is called with the progress of all while rank 0 waits for the others."""
        outcome: T | None = None
        failure: MegatronExtError | None = None
        try:
            outcome = action()
        except MegatronExtError as error:
            failure = error
        except EndedByAnotherRankError:
            pass  # raised again below, when all have ended
        if self.rank == 0:
            self._end_all(failure, show)
        else:
            self._end_own(failure)
        return outcome  # type: ignore[return-value]

    def gather(self, value: T) -> list[T]:
        """As in `Ranks`."""
        gathered: list[T] = self._world.allgather(value)
        return gathered

    def add(self, done: Progress) -> Progress:
        """As in `Ranks`; ranks other than 0 know of themselves alone."""
        self._done, self._unsent = _sum(self._done, done), _sum(self._unsent, done)
        if time.monotonic() - self._last >= NEWS_INTERVAL_S:
            self._last = time.monotonic()
            if self.rank == 0:
                self._receive_news()
            else:
                self._send_news()
            if self._failures:
                raise EndedByAnotherRankError
        return self._done

    def _end_all(self, own: MegatronExtError | None, show: Callable[[Progress], None]) -> None:
        """Rank 0: wait for the others, then let all go on, or raise what one of them found."""
        if own is not None:
            self._fail(0, str(own))
        while self._working:
            time.sleep(POLL_INTERVAL_S)  # MPI's own waiting would keep a core busy
            self._receive_news()
            show(self._done)
        self._working = self.size - 1
        self._tell_others(GO)
        if own is not None:
            raise own
        for rank, message in sorted(self._failures.items()):
            raise DataError(f"{message} (rank {rank})")

    def _end_own(self, failure: MegatronExtError | None) -> None:
        """Other ranks: say that the work ended and how, then wait until that of all has."""
        message = None if failure is None else str(failure)
        self._world.send(_News(self.rank, self._unsent, ended=True, failure=message), 0)
        self._unsent = Progress()
        while not self._hear():
            time.sleep(POLL_INTERVAL_S)
        if self._failures:
            raise EndedByAnotherRankError

    def _send_news(self) -> None:
        if self._sending is None or self._sending.test()[0]:
            self._sending = self._world.isend(_News(self.rank, self._unsent), 0)
            self._unsent = Progress()
        self._hear()

    def _receive_news(self) -> None:
        while self._world.iprobe(self._any_rank):
            news: _News = self._world.recv(source=self._any_rank)
            self._done = _sum(self._done, news.done)
            self._working -= news.ended
            if news.failure is not None:
                self._fail(news.rank, news.failure)

    def _fail(self, rank: int, message: str) -> None:
        if not self._failures:
            self._tell_others(STOP)
        self._failures[rank] = message

    def _tell_others(self, word: str) -> None:
        for rank in range(1, self.size):
            self._world.send(word, rank)

    def _hear(self) -> bool:
        """Take in what rank 0 says, and say whether all have ended."""
        while self._world.iprobe(0):
            word: str = self._world.recv(source=0)
            if word == GO:
                return True
            self._failures[0] = word
        return False

    def _own_cores(self) -> int:
        """Cores that this rank may use, those that other ranks may use as well divided among them."""
        mine = (socket.gethostname(), os.sched_getaffinity(0))
        neighbours = [cores for host, cores in self._world.allgather(mine) if host == mine[0]]
        return max(1, int(sum(1 / sum(core in cores for cores in neighbours) for core in mine[1])))


def join_ranks() -> Ranks:
    """The processes of this job; mpi4py is imported only where a launcher started several.

    Raises:
        LaunchError: the launcher started several processes that MPI does not connect.
        MissingDependencyError: mpi4py is not installed.
    """
    environment = ProcessEnvironment.detect()
    if environment.world_size == 1:
        return OneProcess()
    try:
        from mpi4py import MPI  # noqa: PLC0415 (it joins the job when it is imported)
    except ImportError as error:
        purpose = f"preprocess with {environment.world_size} processes"
        raise MissingDependencyError("mpi4py", purpose, "pip install 'megatron-ext[launchers]'") from error
    if MPI.COMM_WORLD.Get_size() != environment.world_size:
        raise LaunchError(
            f"the launcher started {environment.world_size} processes, but MPI connects "
            f"{MPI.COMM_WORLD.Get_size()} of them; start with the mpirun (or srun --mpi=…) of the MPI that "
            "mpi4py was built with, or one process alone"
        )
    return MpiRanks(MPI)


def _sum(one: Progress, other: Progress) -> Progress:
    return Progress(*(left + right for left, right in zip(one, other, strict=True)))
