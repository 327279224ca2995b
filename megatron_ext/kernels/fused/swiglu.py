"""SwiGLU in Triton: ``silu(gate) × up`` with gate and up as the two halves of one projection (arXiv 2002.05202)."""

from typing import Any

import torch
import triton
import triton.language as tl

from megatron_ext.kernels.fused.checks import check
from megatron_ext.kernels.fused.tiles import warps

LARGEST_BLOCK = 2048


@triton.jit
def _swiglu_forward_kernel(
    gate_up: tl.tensor,
    y: tl.tensor,
    size: tl.tensor,
    COLUMNS: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < size
    source = gate_up + row * 2 * size + column
    gate = tl.load(source, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(source + size, mask=inside, other=0.0).to(tl.float32)
    result = gate * tl.sigmoid(gate) * up
    tl.store(y + row * size + column, result.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _swiglu_backward_kernel(
    grad_y: tl.tensor,
    gate_up: tl.tensor,
    grad: tl.tensor,
    size: tl.tensor,
    COLUMNS: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < size
    place = row * 2 * size + column
    gate = tl.load(gate_up + place, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + place + size, mask=inside, other=0.0).to(tl.float32)
    upstream = tl.load(grad_y + row * size + column, mask=inside, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(gate)
    grad_gate = upstream * up * sigmoid * (1.0 + gate * (1.0 - sigmoid))
    tl.store(grad + place, grad_gate.to(grad.dtype.element_ty), mask=inside)
    grad_up = upstream * gate * sigmoid
    tl.store(grad + place + size, grad_up.to(grad.dtype.element_ty), mask=inside)


def _launch(kernel: Any, *tensors: torch.Tensor, size: int) -> None:
    columns = min(LARGEST_BLOCK, triton.next_power_of_2(size))
    rows = tensors[0].numel() // tensors[0].size(-1)
    kernel[(rows, triton.cdiv(size, columns))](*tensors, size, COLUMNS=columns, num_warps=warps(columns))


def fill_with_swiglu(gate_up: torch.Tensor, y: torch.Tensor) -> None:
    """Write what :func:`swiglu` gives into ``y``, without a gradient; both are contiguous."""
    _launch(_swiglu_forward_kernel, gate_up, y, size=y.size(-1))


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(gate_up)
        y = gate_up.new_empty(*gate_up.shape[:-1], gate_up.size(-1) // 2)
        fill_with_swiglu(gate_up, y)
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: torch.Tensor) -> torch.Tensor:
        (gate_up,) = ctx.saved_tensors
        grad = torch.empty_like(gate_up)
        _launch(_swiglu_backward_kernel, grad_y.contiguous(), gate_up, grad, size=grad_y.size(-1))
        return grad


def swiglu(gate_up: torch.Tensor) -> torch.Tensor:
    """``silu(gate) × up``, computed in fp32; only ``gate_up`` is kept for the backward pass.

    Args:
        gate_up: [..., 2 × ffn], the gate's half first.

    Returns:
        [..., ffn].

    Raises:
        ValueError: the last axis has no halves.
    """
    check(fits=gate_up.size(-1) % 2 == 0, what=f"{gate_up.size(-1)} columns have no two halves")
    y: torch.Tensor = _SwiGLU.apply(gate_up.contiguous())  # type: ignore[no-untyped-call]
    return y
