"""Computing again what autograd would keep."""

from collections.abc import Callable

import torch
from torch.autograd.graph import saved_tensors_hooks


def recompute_when_needed(value: torch.Tensor, compute: Callable[[], torch.Tensor]) -> saved_tensors_hooks:
    """Within the returned context, operations that save ``value`` for their backward pass do not keep it.

    Lighter than a checkpoint around the operation that made it: no random states are stored, and that operation's own
    backward pass runs on what it saved.

    Args:
        value: a tensor that only operations inside the context need.
        compute: gives the same values again.
    """
    address, shape = value.data_ptr(), value.shape

    def pack(saved: torch.Tensor) -> torch.Tensor | None:
        return None if saved.data_ptr() == address and saved.shape == shape else saved

    def unpack(kept: torch.Tensor | None) -> torch.Tensor:
        return compute() if kept is None else kept

    return saved_tensors_hooks(pack, unpack)
