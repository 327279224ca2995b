"""Output projection and cross entropy in one, a chunk of tokens at a time: the logits never exist together.

The losses' gradients differ from token to token (masked labels), so weight gradients cannot be taken in the forward
pass, as kernels for a mean loss do; the backward pass computes each chunk's logits again instead. That is a third more
work in the output layer (0.6 % of a Llama 2 7B step) for 2 × vocabulary bytes a token: worth it where vocabularies
are large or memory is short, so it is chosen by a key and not the default.
"""

from typing import Any

import torch

from megatron_ext.kernels.fused.cross_entropy import (
    VocabularyPart,
    losses_of,
    replace_by_gradient,
    row_statistics,
)
from megatron_ext.kernels.weight_gradient import accumulate_weight_gradient


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        labels: torch.Tensor,
        part: VocabularyPart,
        chunk_tokens: int,
    ) -> torch.Tensor:
        chunks = zip(torch.split(hidden, chunk_tokens), torch.split(labels, chunk_tokens), strict=True)
        statistics = [row_statistics(rows @ weight.t(), targets, part) for rows, targets in chunks]
        # One exchange for all chunks.
        losses, log_sum_exp = losses_of(torch.cat(statistics, dim=1), part.group)
        ctx.save_for_backward(hidden, weight, labels, log_sum_exp)
        ctx.part, ctx.chunk_tokens = part, chunk_tokens
        return losses

    @staticmethod
    def backward(ctx: Any, grad_losses: torch.Tensor) -> tuple[Any, ...]:
        hidden, weight, labels, log_sum_exp = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden)
        target = _main_gradient(weight)
        # Sums of many chunks would round away in bf16.
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if target is None else target
        for start in range(0, len(hidden), ctx.chunk_tokens):
            chunk = slice(start, start + ctx.chunk_tokens)
            rows = hidden[chunk]
            grad = rows @ weight.t()
            replace_by_gradient(grad, labels[chunk], log_sum_exp[chunk], grad_losses[chunk], ctx.part)
            torch.mm(grad, weight, out=grad_hidden[chunk])
            accumulate_weight_gradient(rows, grad, grad_weight)
        if target is None:
            return grad_hidden, grad_weight.to(weight.dtype), None, None, None
        weight.grad_added_to_main_grad = True
        # A gradient has to arrive for megatron-core to know that this one is complete; it is read where an embedding
        # shares the weight.
        empty = torch.zeros_like if getattr(weight, "zero_out_wgrad", False) else torch.empty_like
        return grad_hidden, empty(weight), None, None, None


def _main_gradient(weight: torch.Tensor) -> torch.Tensor | None:
    """Where megatron-core wants the weight's gradient added, if it is fp32: the sum of chunks needs no other place."""
    main_grad: torch.Tensor | None = getattr(weight, "main_grad", None)
    return main_grad if main_grad is not None and main_grad.dtype == torch.float32 else None


def linear_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: torch.Tensor,
    part: VocabularyPart,
    chunk_tokens: int,
) -> torch.Tensor:
    """Loss of each token from the last layer's output.

    Args:
        hidden: [..., hidden], all tokens, the same on every rank; its gradient is this rank's part of the sum.
        weight: [columns, hidden], this rank's rows of the output projection, of the same dtype.
        labels: int64 [...], numbers in the whole vocabulary.
        part: which columns these are.
        chunk_tokens: tokens whose logits exist at a time.

    Returns:
        fp32 [...], in nats, equal on all ranks of the group.
    """
    losses: torch.Tensor = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden.reshape(-1, hidden.size(-1)), weight, labels.reshape(-1), part, chunk_tokens
    )
    return losses.view(labels.shape)
