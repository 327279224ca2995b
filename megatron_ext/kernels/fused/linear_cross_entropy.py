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
        # Sums of many chunks would round away in bf16.
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        for start in range(0, len(hidden), ctx.chunk_tokens):
            chunk = slice(start, start + ctx.chunk_tokens)
            rows = hidden[chunk]
            grad = rows @ weight.t()
            replace_by_gradient(grad, labels[chunk], log_sum_exp[chunk], grad_losses[chunk], ctx.part)
            torch.mm(grad, weight, out=grad_hidden[chunk])
            accumulate_weight_gradient(rows, grad, grad_weight)
        return grad_hidden, grad_weight.to(weight.dtype), None, None, None


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
