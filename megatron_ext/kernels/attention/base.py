"""What every attention back end computes, and what a run asks of one."""

from dataclasses import dataclass
from typing import Protocol

import torch


class AttentionBackend(Protocol):
    """Softmax attention over earlier tokens, without dropout; keys and values may have fewer heads than queries.

    Queries are aligned with the last keys, so that a part of a row can attend to all that comes before it: of
    ``seq_q`` queries and ``seq_k >= seq_q`` keys, query i sees the keys up to ``i + seq_k - seq_q``, and of those
    the last ``window``, its own among them, if one is given. Scores are multiplied by ``scale``, by default
    head_size^-½. Inputs need not be contiguous but in the last dimension.
    """

    name: str
    """The value of ``kernels.attention_backend`` that asks for it."""

    def causal(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float | None = None,
        window: int | None = None,
    ) -> torch.Tensor:
        """Attend inside each row.

        Args:
            query: [batch, seq_q, heads, head_size].
            key: [batch, seq_k, kv_heads, head_size].
            value: as ``key``.
            scale: of the scores.
            window: keys a query sees at most.

        Returns:
            [batch, seq_q, heads, head_size].
        """

    def varlen(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        cu_seqlens_q: torch.Tensor,
        cu_seqlens_k: torch.Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        scale: float | None = None,
        window: int | None = None,
    ) -> torch.Tensor:
        """Attend inside each document.

        Args:
            query: [tokens_q, heads, head_size].
            key: [tokens_k, kv_heads, head_size].
            value: as ``key``.
            cu_seqlens_q: int32 [documents + 1], from 0 to tokens_q: where each document's queries start. A document
                may have none.
            cu_seqlens_k: int32 [documents + 1], from 0 to tokens_k; each document has at least as many keys as queries.
            max_seqlen_q: the most queries of a document, or more; known to the host, so that nothing waits.
            max_seqlen_k: likewise of keys.
            scale: of the scores.
            window: keys a query sees at most.

        Returns:
            [tokens_q, heads, head_size].
        """


@dataclass(frozen=True)
class AttentionNeeds:
    """What a run asks of its attention.

    Attributes:
        capability: compute capability of the NVIDIA GPU, (9, 0) for an H100; None: a CPU.
        dtype: of queries, keys and values.
        head_size: of all three.
        documents: whether attention stays inside documents: :meth:`AttentionBackend.varlen`.
        longer_keys: whether there are more keys than queries, as in context parallelism.
        window: whether a query sees a limited number of keys.
    """

    capability: tuple[int, int] | None
    dtype: torch.dtype
    head_size: int
    documents: bool = False
    longer_keys: bool = False
    window: bool = False
