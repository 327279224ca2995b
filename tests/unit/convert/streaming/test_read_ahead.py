"""One result is made ahead of its use, and no more."""

import threading
from collections.abc import Iterator

import pytest

from megatron_ext.convert.streaming.read_ahead import read_ahead


def test_like_map() -> None:
    assert list(read_ahead(str, range(5))) == list(map(str, range(5)))
    assert not list(read_ahead(str, []))


def test_the_next_is_made_while_this_one_is_used_and_the_one_after_is_not() -> None:
    made = [threading.Event() for _ in range(4)]

    def make(index: int) -> int:
        made[index].set()
        return index

    results: Iterator[int] = read_ahead(make, range(4))
    for index in range(3):
        assert next(results) == index
        assert made[index + 1].wait(timeout=30)
        assert not any(event.is_set() for event in made[index + 2 :])


def test_an_error_comes_where_its_result_would() -> None:
    results = read_ahead(lambda value: 1 // value, [1, 0])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
