"""Refuses what would make the host wait for a GPU, also where tensors lie on a CPU and nothing has to be waited for."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

WAITS = {
    "aten::_local_scalar_dense",  # item, float, int, bool, if
    "aten::equal",
    "aten::nonzero",
    "aten::masked_select",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
    "aten::repeat_interleave.Tensor",
}
INDEXED = {"aten::index.Tensor", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
COPIES_TO_HOST = ("tolist", "numpy", "cpu", "__array__")
FACTORIES = ("tensor", "as_tensor")


class HostWaitError(AssertionError):
    """The host asked for what a GPU has yet to compute."""


@contextlib.contextmanager
def refused_waits() -> Iterator[None]:
    """Raise :class:`HostWaitError` in the block at each wait for a device.

    Seen are operators whose result the host has to know, copies to the host, ``torch.cuda.synchronize``, and tensors
    made from Python numbers on a device, whose copy comes from pageable memory. Not seen is ``tensor.to(device)``
    without ``non_blocking``: on a CPU there is nothing to move.
    """
    with contextlib.ExitStack() as stack:
        for name in COPIES_TO_HOST:
            stack.enter_context(mock.patch.object(torch.Tensor, name, _refusing(f"Tensor.{name}")))
        stack.enter_context(mock.patch.object(torch.cuda, "synchronize", _refusing("torch.cuda.synchronize")))
        for name in FACTORIES:
            made = _on_host_only(name, getattr(torch, name))
            stack.enter_context(mock.patch.object(torch, name, made))
        stack.enter_context(_Watch())
        yield


class _Watch(TorchDispatchMode):
    """Sees every operator below autograd, of forward and backward passes."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        name = function.name()
        if name in WAITS:
            raise HostWaitError(name)
        if name in INDEXED and any(index is not None and index.dtype == torch.bool for index in args[1]):
            self._check_mask(name, args)
        return function(*args, **(kwargs or {}))

    def _check_mask(self, name: str, args: Any) -> None:
        """One value is filled in where the mask is set; more need the number of places."""
        if name == "aten::index.Tensor" or args[2].numel() != 1:
            raise HostWaitError(f"{name} with a mask")


def _refusing(name: str) -> Callable[..., Any]:
    def refuse(*_arguments: Any, **_options: Any) -> Any:
        raise HostWaitError(name)

    return refuse


def _on_host_only(name: str, factory: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def make(*arguments: Any, **options: Any) -> torch.Tensor:
        if options.get("device") not in (None, "cpu"):
            raise HostWaitError(f"torch.{name} on a device")
        return factory(*arguments, **options)

    return make
