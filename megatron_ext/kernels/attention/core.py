"""megatron-core's core-attention slot, filled with one of the back ends."""

from typing import Any

import torch
from megatron.core.transformer.module import MegatronModule

from megatron_ext.kernels.attention.base import AttentionBackend
from megatron_ext.kernels.attention.documents import Documents


class DotProductAttention(MegatronModule):  # type: ignore[misc]
    """Causal attention with grouped KV heads over whole rows, or inside documents."""

    def __init__(
        self,
        config: Any,
        *_slot: Any,
        backend: AttentionBackend,
        softmax_scale: float | None = None,
        window: int | None = None,
        **_slot_options: Any,
    ) -> None:
        super().__init__(config=config)
        self.backend = backend
        self.softmax_scale = softmax_scale
        self.window = window

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        packed_seq_params: Documents | None = None,
        **_slot_options: Any,
    ) -> torch.Tensor:
        """Attend.

        Args:
            query: [seq, batch, heads, head_size].
            key: [seq, batch, kv_heads, head_size].
            value: as ``key``.
            attention_mask: None; masks are not materialised here.
            packed_seq_params: the documents that attention stays inside of; None: whole rows.

        Returns:
            [seq, batch, heads × head_size].

        Raises:
            ValueError: an attention mask is given.
        """
        if attention_mask is not None:
            raise ValueError(
                "attention takes no mask: it is causal, inside the documents of packed_seq_params"
            )
        # As it comes it is a view into the fused qkv, and keeping it for the backward pass would keep all three.
        value = value.contiguous()
        rows = (tensor.transpose(0, 1) for tensor in (query, key, value))
        output = self._rows(*rows) if packed_seq_params is None else self._inside(packed_seq_params, *rows)
        return output.transpose(0, 1).flatten(2).contiguous()

    def _rows(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return self.backend.causal(query, key, value, self.softmax_scale, self.window)

    def _inside(
        self, documents: Documents, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        # Copies, unless the batch is one row.
        packed = query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1)
        starts, longest = documents.cu_seqlens_q, documents.longest
        output = self.backend.varlen(
            *packed, starts, starts, longest, longest, self.softmax_scale, self.window
        )
        return output.view(query.shape)

    def sharded_state_dict(self, *_args: Any, **_kwargs: Any) -> dict[str, Any]:
        """No parameters, hence nothing to store."""
        return {}
