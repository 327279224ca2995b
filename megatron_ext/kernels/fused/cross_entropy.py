"""Cross entropy over a vocabulary split among ranks, in Triton: no fp32 logits, the gradient in the logits' place.

megatron-core copies the logits to fp32 and keeps their softmax until the backward pass: 6 bytes for each of bf16's 2.
Here a row is read once forward and overwritten once backward. The statistics are those of the online softmax
(Milakov and Gimelshein, 2018, arXiv 1805.02867), whose parts add up over blocks and over ranks alike.
"""

import dataclasses
from typing import Any

import torch
import torch.distributed as dist
import triton
import triton.language as tl

from megatron_ext.kernels.fused.checks import check
from megatron_ext.kernels.fused.tiles import warps

LARGEST_BLOCK = 4096


@dataclasses.dataclass(frozen=True)
class VocabularyPart:
    """The columns of the vocabulary that this rank holds.

    Attributes:
        first: number of the token of the first column.
        real: columns that stand for a token; those behind only fill up, and have no probability.
        group: the ranks that hold the other parts, or None where there are none.
    """

    first: int
    real: int
    group: dist.ProcessGroup | None = None


@triton.jit
def _cross_entropy_statistics_kernel(
    logits: tl.tensor,
    labels: tl.tensor,
    largest: tl.tensor,
    sum_exp: tl.tensor,
    predicted: tl.tensor,
    width: tl.tensor,
    real: tl.tensor,
    first: tl.tensor,
    COLUMNS: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    source = logits + row * width
    highest = tl.full([], float("-inf"), tl.float32)
    total = tl.full([], 0.0, tl.float32)
    for start in range(0, real, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        block = tl.load(source + column, mask=column < real, other=float("-inf")).to(tl.float32)
        higher = tl.maximum(highest, tl.max(block, axis=0))
        total = total * tl.exp(highest - higher) + tl.sum(tl.exp(block - higher), axis=0)
        highest = higher
    label = tl.load(labels + row) - first
    here = (label >= 0) & (label < real)
    tl.store(predicted + row, tl.load(source + label, mask=here, other=0.0).to(tl.float32))
    tl.store(largest + row, highest)
    tl.store(sum_exp + row, total)


@triton.jit
def _cross_entropy_gradient_kernel(
    logits: tl.tensor,
    labels: tl.tensor,
    log_sum_exp: tl.tensor,
    grad_losses: tl.tensor,
    width: tl.tensor,
    real: tl.tensor,
    first: tl.tensor,
    COLUMNS: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    place = logits + row * width + column
    logit = tl.load(place, mask=column < real, other=float("-inf")).to(tl.float32)
    probability = tl.exp(logit - tl.load(log_sum_exp + row))
    label = tl.load(labels + row) - first
    # A label beyond this part's real columns belongs to another rank, though it may fall on a padding column here.
    target = tl.where((column == label) & (column < real), 1.0, 0.0)
    grad = (probability - target) * tl.load(grad_losses + row)
    tl.store(place, grad.to(logits.dtype.element_ty), mask=column < width)


def row_statistics(logits: torch.Tensor, labels: torch.Tensor, part: VocabularyPart) -> torch.Tensor:
    """What a row's loss needs of this rank's columns.

    Args:
        logits: [tokens, columns], contiguous.
        labels: int64 [tokens].
        part: which columns these are.

    Returns:
        fp32 [3, tokens]: the largest logit, Σ exp(logit - largest), and the label's logit or 0 where it is not here.

    Raises:
        ValueError: shapes do not fit.
    """
    tokens, width = logits.shape
    check(fits=labels.shape == (tokens,), what=f"{tuple(labels.shape)} labels for {tokens} rows")
    check(fits=0 <= part.real <= width, what=f"{part.real} real columns of {width}")
    statistics = torch.empty(3, tokens, dtype=torch.float32, device=logits.device)
    columns = min(LARGEST_BLOCK, triton.next_power_of_2(width))
    _cross_entropy_statistics_kernel[(tokens,)](
        logits, labels, *statistics, width, part.real, part.first, COLUMNS=columns, num_warps=warps(columns)
    )
    return statistics


def losses_of(statistics: torch.Tensor, group: dist.ProcessGroup | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Losses and log Σ exp(logit), fp32 [tokens] each, from the statistics of all parts."""
    largest, sums = statistics[0], statistics[1:]
    if group is not None:
        highest = largest.clone()
        dist.all_reduce(highest, op=dist.ReduceOp.MAX, group=group)
        sums[0] *= (largest - highest).exp_()
        dist.all_reduce(sums, group=group)
        largest = highest
    log_sum_exp = sums[0].log().add_(largest)
    return log_sum_exp - sums[1], log_sum_exp


def replace_by_gradient(
    logits: torch.Tensor,
    labels: torch.Tensor,
    log_sum_exp: torch.Tensor,
    grad_losses: torch.Tensor,
    part: VocabularyPart,
) -> None:
    """Overwrite ``logits`` by the gradient of Σ grad_losses × loss; shapes as in :func:`row_statistics`."""
    tokens, width = logits.shape
    columns = min(LARGEST_BLOCK, triton.next_power_of_2(width))
    _cross_entropy_gradient_kernel[(tokens, triton.cdiv(width, columns))](
        logits, labels, log_sum_exp, grad_losses.contiguous(), width, part.real, part.first,
        COLUMNS=columns, num_warps=warps(columns),
    )  # fmt: skip


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, labels: torch.Tensor, part: VocabularyPart) -> torch.Tensor:
        losses, log_sum_exp = losses_of(row_statistics(logits, labels, part), part.group)
        # Not save_for_backward: it would forbid to overwrite them.
        ctx.logits, ctx.part = logits.detach(), part
        ctx.save_for_backward(labels, log_sum_exp)
        return losses

    @staticmethod
    def backward(ctx: Any, grad_losses: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        if ctx.logits is None:
            raise RuntimeError("the gradient has replaced the logits; a loss can be differentiated once")
        grad, ctx.logits = ctx.logits, None
        labels, log_sum_exp = ctx.saved_tensors
        replace_by_gradient(grad, labels, log_sum_exp, grad_losses, ctx.part)
        return grad, None, None


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, part: VocabularyPart) -> torch.Tensor:
    """Loss of each token; the backward pass turns ``logits`` into their gradient, so nothing else may need them.

    Args:
        logits: [..., columns], this rank's part, in any floating dtype up to fp32.
        labels: int64 [...], numbers in the whole vocabulary.
        part: which columns these are.

    Returns:
        fp32 [...], in nats, equal on all ranks of the group.
    """
    flat = logits.contiguous().view(-1, logits.size(-1))
    losses: torch.Tensor = _CrossEntropy.apply(  # type: ignore[no-untyped-call]
        flat, labels.reshape(-1), part
    )
    return losses.view(labels.shape)
