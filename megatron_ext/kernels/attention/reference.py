"""Attention written out: scores, mask, softmax. On any device, in fp32 or better; memory grows with seq_q × seq_k."""

import torch


class ReferenceAttention:
    """What the other back ends are compared with, and what serves where none of them can."""

    name = "torch"

    def causal(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float | None = None,
        window: int | None = None,
    ) -> torch.Tensor:
        """See :meth:`AttentionBackend.causal`."""
        return _attend(
            query, key, value, lower_right(query.shape[1], key.shape[1], window, query.device), scale
        )

    def varlen(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        cu_seqlens_q: torch.Tensor,
        cu_seqlens_k: torch.Tensor,
        max_seqlen_q: int,  # noqa: ARG002 - the mask holds every pair of tokens
        max_seqlen_k: int,  # noqa: ARG002
        scale: float | None = None,
        window: int | None = None,
    ) -> torch.Tensor:
        """See :meth:`AttentionBackend.varlen`."""
        document_q, left_q = _document_and_rest(cu_seqlens_q, query.shape[0])
        document_k, left_k = _document_and_rest(cu_seqlens_k, key.shape[0])
        visible = document_q[:, None] == document_k
        visible &= _not_later(left_k - left_q[:, None], window)
        return _attend(query[None], key[None], value[None], visible, scale).squeeze(0)


def lower_right(seq_q: int, seq_k: int, window: int | None, device: torch.device) -> torch.Tensor:
    """Which keys a query sees when the last query sees the last key: bool [seq_q, seq_k]."""
    left_q = torch.arange(seq_q - 1, -1, -1, device=device)
    left_k = torch.arange(seq_k - 1, -1, -1, device=device)
    return _not_later(left_k - left_q[:, None], window)


def _not_later(distance: torch.Tensor, window: int | None) -> torch.Tensor:
    """``distance``: how many tokens a key lies before its query."""
    return distance >= 0 if window is None else (distance >= 0) & (distance < window)


def _document_and_rest(cu_seqlens: torch.Tensor, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each token, the number of its document and how many tokens that document still has behind it."""
    position = torch.arange(tokens, device=cu_seqlens.device, dtype=cu_seqlens.dtype)
    document = torch.searchsorted(cu_seqlens[1:], position, right=True)
    return document, cu_seqlens[document + 1] - 1 - position


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, visible: torch.Tensor, scale: float | None
) -> torch.Tensor:
    """[batch, seq, heads, head_size] and bool [seq_q, seq_k] → [batch, seq_q, heads, head_size]."""
    batch, seq_q, heads, head_size = query.shape
    groups = key.shape[2]
    exact = torch.promote_types(query.dtype, torch.float32)
    # Query head h reads KV head h // (heads / kv_heads), as in every checkpoint with grouped queries.
    by_group = query.to(exact).reshape(batch, seq_q, groups, heads // groups, head_size)
    scores = torch.einsum("bqghd,bkgd->bghqk", by_group, key.to(exact))
    scores = scores * (head_size**-0.5 if scale is None else scale)
    weights = scores.masked_fill(~visible, -torch.inf).softmax(dim=-1)
    return torch.einsum("bghqk,bkgd->bqghd", weights, value.to(exact)).flatten(2, 3).to(query.dtype)
