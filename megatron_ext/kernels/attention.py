"""Core attention on torch's scaled_dot_product_attention: flash and cuDNN kernels on GPUs, a blocked one on CPUs."""

from itertools import pairwise
from typing import Any

import torch
from megatron.core.transformer.module import MegatronModule
from torch.nn.functional import scaled_dot_product_attention


class DotProductAttention(MegatronModule):  # type: ignore[misc]
    """Causal attention with grouped KV heads, whole rows or inside documents; megatron-core's core-attention slot."""

    def __init__(
        self, config: Any, *_slot: Any, softmax_scale: float | None = None, **_slot_options: Any
    ) -> None:
        super().__init__(config=config)
        self.softmax_scale = softmax_scale

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **_slot_options: Any,
    ) -> torch.Tensor:
        """Attend.

        Args:
            query: [seq, batch, heads, head_size].
            key: [seq, batch, kv_heads, head_size].
            value: as ``key``.
            attention_mask: None for plain causal rows, or cu_seqlens, int32 [documents + 1]: cumulative lengths of the
                documents in the batch-major flattened tokens, from 0 to batch × seq, with a boundary at each row.

        Returns:
            [seq, batch, heads × head_size].
        """
        seq_length, batch_size = query.shape[:2]
        # As it comes it is a view into the fused qkv, and keeping it for the backward pass would keep all three.
        value = value.contiguous()
        if attention_mask is None:
            rows = (tensor.permute(1, 2, 0, 3) for tensor in (query, key, value))
            output = self._causal(*rows).permute(2, 0, 1, 3)
            return output.reshape(seq_length, batch_size, -1)
        packed = (tensor.transpose(0, 1).flatten(0, 1) for tensor in (query, key, value))
        output = self._inside_documents(*packed, cu_seqlens=attention_mask)
        return output.view(batch_size, seq_length, -1).transpose(0, 1).contiguous()

    def _causal(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """[batch, heads, seq, head_size] → the same."""
        grouped = query.size(1) != key.size(1)
        return scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=self.softmax_scale, enable_gqa=grouped
        )

    def _inside_documents(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, cu_seqlens: torch.Tensor
    ) -> torch.Tensor:
        """[tokens, heads, head_size] → [tokens, heads × head_size]: a causal block per document, no seq × seq mask."""
        documents = []
        for start, end in pairwise(cu_seqlens.tolist()):
            block = (tensor[start:end].transpose(0, 1).unsqueeze(0) for tensor in (query, key, value))
            documents.append(self._causal(*block).squeeze(0).transpose(0, 1).flatten(1))
        return torch.cat(documents)

    def sharded_state_dict(self, *_args: Any, **_kwargs: Any) -> dict[str, Any]:
        """No parameters, hence nothing to store."""
        return {}
