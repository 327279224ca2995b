"""RMSNorm in Triton, forward and backward, alone or after a residual addition (arXiv 1910.07467).

One pass over memory in each direction: torch reads the row twice and keeps the scale; here the row stays in registers
and the scale is computed again in the backward pass. Whole rows are held, for which
registers suffice up to a hidden size of 8,192.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from megatron_ext.kernels.fused.checks import check
from megatron_ext.kernels.fused.tiles import LARGEST_AHEAD, persistent_programs, row_tile, warps


@triton.jit
def _rms_norm_forward_kernel(
    x: tl.tensor,
    residual: tl.tensor,
    weight: tl.tensor,
    total: tl.tensor,
    y: tl.tensor,
    rows: tl.tensor,
    size: tl.tensor,
    eps: tl.tensor,
    ADDS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    inside = (row[:, None] < rows) & (column[None, :] < size)
    place = row[:, None] * size + column[None, :]
    value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
    if ADDS:
        value += tl.load(residual + place, mask=inside, other=0.0).to(tl.float32)
        # What is normalised is what the next layers add to: the sum as stored.
        value = value.to(total.dtype.element_ty).to(tl.float32)
        tl.store(total + place, value.to(total.dtype.element_ty), mask=inside)
    scale = 1.0 / tl.sqrt(tl.sum(value * value, axis=1) / size + eps)
    gain = tl.load(weight + column, mask=column < size, other=0.0).to(tl.float32)
    result = value * scale[:, None] * gain[None, :]
    tl.store(y + place, result.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _rms_norm_backward_kernel(
    grad_y: tl.tensor,
    grad_total: tl.tensor,
    x: tl.tensor,
    weight: tl.tensor,
    grad_x: tl.tensor,
    grad_weight_parts: tl.tensor,
    rows: tl.tensor,
    size: tl.tensor,
    eps: tl.tensor,
    ADDS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STAGES: tl.constexpr,
) -> None:
    column = tl.arange(0, COLUMNS)
    gain = tl.load(weight + column, mask=column < size, other=0.0).to(tl.float32)
    grad_gain = tl.zeros([COLUMNS], dtype=tl.float32)
    # With two stages the next tile is on its way while this one is computed.
    for tile in tl.range(tl.program_id(0), tl.cdiv(rows, ROWS), tl.num_programs(0), num_stages=STAGES):
        row = (tile * ROWS + tl.arange(0, ROWS)).to(tl.int64)
        inside = (row[:, None] < rows) & (column[None, :] < size)
        place = row[:, None] * size + column[None, :]
        value = tl.load(x + place, mask=inside, other=0.0).to(tl.float32)
        upstream = tl.load(grad_y + place, mask=inside, other=0.0).to(tl.float32)
        scale = 1.0 / tl.sqrt(tl.sum(value * value, axis=1) / size + eps)
        normalised = value * scale[:, None]
        grad_gain += tl.sum(upstream * normalised, axis=0)
        upstream *= gain[None, :]
        along = tl.sum(upstream * normalised, axis=1) / size
        grad = (upstream - normalised * along[:, None]) * scale[:, None]
        if ADDS:
            grad += tl.load(grad_total + place, mask=inside, other=0.0).to(tl.float32)
        tl.store(grad_x + place, grad.to(grad_x.dtype.element_ty), mask=inside)
    tl.store(grad_weight_parts + tl.program_id(0) * size + column, grad_gain, mask=column < size)


def _forward(
    x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The normed sum and the sum itself, which is ``x`` where there is no residual."""
    y = torch.empty_like(x)
    total = x if residual is None else torch.empty_like(x)
    size = x.size(-1)
    rows = x.numel() // size
    tile_rows, columns = row_tile(size)
    _rms_norm_forward_kernel[(triton.cdiv(rows, tile_rows),)](
        x, x if residual is None else residual, weight, total, y, rows, size, eps,
        ADDS=residual is not None, ROWS=tile_rows, COLUMNS=columns, num_warps=warps(tile_rows * columns),
    )  # fmt: skip
    return y, total


def _backward(
    grad_y: torch.Tensor, grad_total: torch.Tensor | None, x: torch.Tensor, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of what was normalised, ``grad_total`` added, and of the weight."""
    size = x.size(-1)
    rows = x.numel() // size
    tile_rows, columns = row_tile(size)
    num_warps = warps(tile_rows * columns)
    programs = persistent_programs(x.device, triton.cdiv(rows, tile_rows), num_warps)
    grad_x = torch.empty_like(x)
    parts = torch.empty(programs, size, dtype=torch.float32, device=x.device)
    _rms_norm_backward_kernel[(programs,)](
        grad_y, grad_y if grad_total is None else grad_total, x, weight, grad_x, parts, rows, size, eps,
        ADDS=grad_total is not None, ROWS=tile_rows, COLUMNS=columns, num_warps=num_warps,
        STAGES=2 if tile_rows * columns <= LARGEST_AHEAD else 1,
    )  # fmt: skip
    return grad_x, parts.sum(dim=0).to(weight.dtype)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        return _forward(x, None, weight, eps)[0]

    @staticmethod
    def backward(ctx: Any, grad_y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        x, weight = ctx.saved_tensors
        return *_backward(grad_y.contiguous(), None, x, weight, ctx.eps), None


class _ForkedRMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.save_for_backward(x, weight)
        ctx.eps = eps
        return _forward(x, None, weight, eps)[0], x

    @staticmethod
    def backward(
        ctx: Any, grad_y: torch.Tensor, grad_x: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, None]:
        x, weight = ctx.saved_tensors
        return *_backward(grad_y.contiguous(), grad_x.contiguous(), x, weight, ctx.eps), None


class _AddRMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        y, total = _forward(x, residual, weight, eps)
        ctx.save_for_backward(total, weight)
        ctx.eps = eps
        return y, total

    @staticmethod
    def backward(
        ctx: Any, grad_y: torch.Tensor, grad_total: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:
        total, weight = ctx.saved_tensors
        grad_x, grad_weight = _backward(grad_y.contiguous(), grad_total.contiguous(), total, weight, ctx.eps)
        return grad_x, grad_x, grad_weight, None


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """``x / sqrt(mean(x²) + eps) × weight`` over the last axis, computed in fp32.

    Args:
        x: [..., hidden], any floating dtype up to fp32.
        weight: [hidden].
        eps: added to the mean square.

    Returns:
        As ``x``.

    Raises:
        ValueError: shapes do not fit.
    """
    check(fits=weight.shape == x.shape[-1:], what=f"weight {tuple(weight.shape)} for rows of {x.shape[-1]}")
    y: torch.Tensor = _RMSNorm.apply(x.contiguous(), weight, eps)  # type: ignore[no-untyped-call]
    return y


def forked_rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> tuple[torch.Tensor, torch.Tensor]:
    """:func:`rms_norm` of ``x``, and ``x`` itself for its other use: the kernel adds up the gradients of both."""
    check(fits=weight.shape == x.shape[-1:], what=f"weight {tuple(weight.shape)} for rows of {x.shape[-1]}")
    y, x = _ForkedRMSNorm.apply(x.contiguous(), weight, eps)  # type: ignore[no-untyped-call]
    return y, x


def add_rms_norm(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalise a sum.

    Args:
        x: [..., hidden].
        residual: as ``x``.
        weight: [hidden].
        eps: added to the mean square.

    Returns:
        ``rms_norm(x + residual)`` and ``x + residual``, both as ``x``.

    Raises:
        ValueError: shapes do not fit.
    """
    check(fits=weight.shape == x.shape[-1:], what=f"weight {tuple(weight.shape)} for rows of {x.shape[-1]}")
    check(fits=x.shape == residual.shape, what=f"x {tuple(x.shape)}, residual {tuple(residual.shape)}")
    y, total = _AddRMSNorm.apply(  # type: ignore[no-untyped-call]
        x.contiguous(), residual.contiguous(), weight, eps
    )
    return y, total
