"""Computing again what autograd would keep."""

from collections.abc import Callable

import torch


def discard_until_backward(
    value: torch.Tensor, output: torch.Tensor, fill: Callable[[torch.Tensor], None]
) -> None:
    """Free the memory of ``value``, which the operation that gave ``output`` keeps, until its backward pass.

    Lighter than a checkpoint around what made ``value``: no random states are stored, and its own backward pass runs on
    what it saved. Hooks on saved tensors would be the plain way, but they hand the backward pass another object for
    each weight, without the attributes by which megatron-core finds main gradients.

    Args:
        value: a tensor that nothing else needs.
        output: what was computed from it last; the arrival of its gradient brings the values back.
        fill: writes the values into the tensor it is given, past autograd's count of versions.
    """
    if not output.requires_grad:
        return
    values = value.detach()
    size = values.untyped_storage().nbytes()
    values.untyped_storage().resize_(0)
    # Schedules keep ``output``, and so this hook, until the next micro-batch takes its place: by then it holds nothing.
    waiting = [(values, fill)]

    def bring_back(_gradient: torch.Tensor) -> None:
        values, fill = waiting.pop()
        values.untyped_storage().resize_(size)
        fill(values)

    output.register_hook(bring_back)  # type: ignore[no-untyped-call]
