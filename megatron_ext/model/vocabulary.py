"""Vocabulary rows over tensor-parallel ranks."""

from typing import Any

import torch
from megatron.core.models.gpt import GPTModel
from megatron.core.parallel_state import get_tensor_model_parallel_rank


def padded_vocab_size(vocab_size: int, tensor_model_parallel_size: int) -> int:
    """Rows of the embedding: the smallest multiple of the tensor-parallel size that holds every token."""
    return -(-vocab_size // tensor_model_parallel_size) * tensor_model_parallel_size


def real_columns(first: int, columns: int, vocab_size: int) -> int:
    """How many of ``columns`` columns from number ``first`` on stand for a token; padding is at the end."""
    return max(0, min(columns, vocab_size - first))


def mask_padded_logits(model: GPTModel, vocab_size: int) -> None:
    """Keep padding rows out of the softmax, or every loss would depend on the tensor-parallel size.

    A padded row's logit becomes the lowest finite value: its probability is 0, and so is its gradient.
    """
    if not model.post_process or model.vocab_size == vocab_size:
        return
    columns_here = model.output_layer.output_size_per_partition
    real = real_columns(get_tensor_model_parallel_rank() * columns_here, columns_here, vocab_size)

    def mask(_layer: Any, _inputs: Any, output: tuple[torch.Tensor, Any]) -> tuple[torch.Tensor, Any]:
        logits, bias = output
        padding = logits.new_full((*logits.shape[:-1], columns_here - real), torch.finfo(logits.dtype).min)
        return torch.cat([logits[..., :real], padding], dim=-1), bias

    if real < columns_here:
        model.output_layer.register_forward_hook(mask)
