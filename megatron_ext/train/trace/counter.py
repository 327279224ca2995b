"""Counts what a step does on tensors without data: the bytes that are allocated, kernels, and waits for the device."""

import weakref
from collections import defaultdict
from typing import Any

import torch
from torch._C._distributed_c10d import FakeWork
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from megatron_ext.observe.profile import COMMUNICATION, OPTIMIZER
from megatron_ext.train.trace.work import Work, work_of_operation

ALLOCATED_IN = 512
"""Bytes that torch's allocator on GPUs rounds each piece of memory up to."""
FETCH = "aten::_local_scalar_dense"
COPIES = ("aten::copy_", "aten::_to_copy")
ENTER_MARK, LEAVE_MARK = "profiler::_record_function_enter_new", "profiler::_record_function_exit"


class StepCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts while it is entered.

    Attributes:
        live: bytes allocated now.
        peak: most bytes since :meth:`restart`.
        waits: times that the host asked for a value since then; each is answered with 0.
        uploads: bytes copied from the host since then.
        done: what was launched since then, by kind.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = self.waits = self.uploads = 0
        self.done: dict[str, list[Work]] = defaultdict(list)
        self._updating = 0
        self._sizes: dict[int, tuple[weakref.ref[torch.UntypedStorage], int]] = {}

    def restart(self) -> None:
        """Forget everything but what is allocated."""
        self.peak, self.waits, self.uploads = self.live, 0, 0
        self.done.clear()

    def add(self, work: Work) -> None:
        """Count a launch; in an optimizer's step all but communication is the optimizer's."""
        of_update = self._updating and work.kind != COMMUNICATION
        self.done[OPTIMIZER if of_update else work.kind].append(work)

    def note(self, storage: torch.UntypedStorage) -> None:
        """Count memory that is new, or has another size than before."""
        key = storage._cdata
        size = -(-storage.nbytes() // ALLOCATED_IN) * ALLOCATED_IN
        if key in self._sizes and self._sizes[key][0]() is storage:
            self.live += size - self._sizes[key][1]
            self._sizes[key] = (self._sizes[key][0], size)
        else:
            self.live += size
            self._sizes[key] = (weakref.ref(storage, lambda _gone: self._forget(key)), size)
        self.peak = max(self.peak, self.live)

    def _forget(self, key: int) -> None:
        self.live -= self._sizes.pop(key)[1]

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run or stand in for one operation."""
        del types
        kwargs, name = kwargs or {}, function.name()
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        without_data = any(tensor.device.type == "meta" for tensor in tensors)
        if name == FETCH and without_data:
            self.waits += 1
            return torch.zeros((), dtype=tensors[0].dtype, device="cpu").item()
        if name.startswith("c10d::") and without_data:
            self.add(Work(COMMUNICATION, 0, sum(tensor.nbytes for tensor in tensors)))
            return _communicated(function, args)
        output = function(*args, **kwargs)
        self._follow(name, args)
        outputs = [leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor)]
        for tensor in (*tensors, *outputs):
            if tensor.device.type == "meta":
                self.note(tensor.untyped_storage())
        if without_data or any(tensor.device.type == "meta" for tensor in outputs):
            if name.startswith(COPIES):  # else a value that comes along with the launch
                self.uploads += sum(tensor.nbytes for tensor in tensors if tensor.device.type == "cpu")
            work = work_of_operation(function, args, kwargs, output)
            if work is not None:
                self.add(work)
        return output

    def _follow(self, name: str, args: Any) -> None:
        """How many marks are open, from an optimizer's step on."""
        if name.startswith(ENTER_MARK) and (self._updating or args[0] == OPTIMIZER):
            self._updating += 1
        elif name.startswith(LEAVE_MARK) and self._updating:
            self._updating -= 1


def _communicated(function: Any, args: Any) -> Any:
    """A collective's answer, which is over already: its first arguments are what it writes to."""
    tensors = len(function._schema.returns) - 1
    work = FakeWork().boxed()
    return (*args[:tensors], work) if tensors else work
