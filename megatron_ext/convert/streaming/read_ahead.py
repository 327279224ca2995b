"""Reading the next tensor while this one is written: a conversion waits for the disk both ways."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_ahead(read: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """``map``, with the next result made in a thread while the caller uses this one: two exist at a time."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        this: Future[Result] | None = None
        for item in items:
            following = thread.submit(read, item)
            if this is not None:
                yield this.result()
            this = following
        if this is not None:
            yield this.result()
