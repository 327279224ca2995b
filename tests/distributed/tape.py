"""A graph on the CPU: the operations of some work are written down with their tensors, and done again on these.

As with a CUDA graph, recording computes nothing that lasts, and replaying runs no Python of the model: what the host
decided while recording stays as it was, and only what lies in tensors can change.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import torch
from torch.distributed.distributed_c10d import Work
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

Result = TypeVar("Result")
FETCH = "aten::_local_scalar_dense"
"""Gives the host a value of a tensor; a capture fails at it."""
SEND, RECEIVE = "c10d::send", "c10d::recv_"


class TapeRecorder:
    """A recorder; it counts what it records, and how often any of that is replayed."""

    def __init__(self) -> None:
        self.recordings = self.replays = 0

    @contextlib.contextmanager
    def beside(self) -> Iterator[None]:
        """The CPU has one queue."""
        yield

    def record(self, work: Callable[[], Result]) -> tuple[Result, Callable[[], None]]:
        """Write down ``work``; tensors that existed before it are left as they were, and its own are spoiled."""
        self.recordings += 1
        tape = _Tape()
        with tape:
            result = work()
        tape.forget()

        def replay() -> None:
            self.replays += 1
            tape.replay()

        return result, replay


class _Operation(NamedTuple):
    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any


class _Tape(TorchDispatchMode):
    """Sees every operation below autograd: of forward and backward passes, and between processes."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[_Operation] = []
        self.own: set[int] = set()
        self.before: dict[int, tuple[torch.UntypedStorage, torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        if function.name() == FETCH:
            raise RuntimeError("the host asks for a value while a graph is recorded")
        kwargs = kwargs or {}
        for storage in _storages((args, kwargs)):
            if storage.data_ptr() not in self.own and storage.data_ptr() not in self.before:
                self.before[storage.data_ptr()] = (storage, storage.clone())
        output = function(*args, **kwargs)
        if function.name() not in (SEND, RECEIVE):
            # Waiting may copy, and what the host waits for later must not be written down besides.
            output = tree_map(_finished, output)
        made = {storage.data_ptr() for storage in _storages(output)}
        self.own |= made - self.before.keys()
        self.operations.append(_Operation(function, args, kwargs, output))
        return output

    def forget(self) -> None:
        """Undo what recording has changed, and spoil what it has made."""
        for storage, values in self.before.values():
            storage.copy_(values)
        for operation in self.operations:
            for tensor in _leaves(operation.output, torch.Tensor):
                if tensor.is_floating_point() and tensor.untyped_storage().data_ptr() in self.own:
                    tensor.detach().fill_(torch.nan)

    @torch.no_grad()
    def replay(self) -> None:
        """Each operation again; where one makes a tensor, it fills the one that it made while recording."""
        sent: list[Work] = []
        received: list[Work] = []
        for function, args, kwargs, output in self.operations:
            name = function.name()
            if not name.startswith("c10d::"):
                _wait(received)
            again = function(*args, **kwargs)
            works = [Work.unbox(one) for one in _leaves(again, torch.ScriptObject)]
            if name == SEND:
                sent += works
            elif name == RECEIVE:
                received += works
            else:
                _wait(works)
            for old, new in zip(_leaves(output, torch.Tensor), _leaves(again, torch.Tensor), strict=True):
                if new.untyped_storage().data_ptr() != old.untyped_storage().data_ptr():
                    old.detach().copy_(new)
        _wait(received + sent)


def _finished(value: Any) -> Any:
    """The same, with a communication that is over in place of one that is under way."""
    if not isinstance(value, torch.ScriptObject):
        return value
    Work.unbox(value).wait()
    return torch._C._distributed_c10d.FakeWork().boxed()


def _wait(works: list[Work]) -> None:
    for work in works:
        work.wait()
    works.clear()


def _leaves(value: Any, kind: type[Any]) -> list[Any]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, kind)]


def _storages(value: Any) -> list[torch.UntypedStorage]:
    return [tensor.untyped_storage() for tensor in _leaves(value, torch.Tensor)]
