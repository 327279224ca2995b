"""torch's own attention: its flash and cuDNN kernels on GPUs, its blocked kernel on CPUs."""

import inspect
from itertools import pairwise
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention

from megatron_ext.kernels.attention.reference import lower_right

TOLD_OF_GROUPS = "enable_gqa" in inspect.signature(varlen_attn).parameters
"""torch 2.13 refuses fewer KV heads unless it is told of them; torch 2.11 takes them, as its kernel does, untold."""


class SdpaFlashAttention:
    """The flash kernel, and on CPUs whichever serves.

    scaled_dot_product_attention aligns queries with the *first* keys and knows no window, so where that matters the
    flash kernel is reached through varlen_attn on GPUs, and gets a mask on CPUs.
    """

    name = "sdpa_flash"

    def causal(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float | None = None,
        window: int | None = None,
    ) -> torch.Tensor:
        """See :meth:`AttentionBackend.causal`."""
        seq_q, seq_k = query.shape[1], key.shape[1]
        square = seq_q == seq_k and window is None
        if _on_gpu(query) and square:
            with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
                return _sdpa(query, key, value, scale)
        if _on_gpu(query):
            packed = query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1)
            starts = _row_starts(query), _row_starts(key)
            return self.varlen(*packed, *starts, seq_q, seq_k, scale, window).view(query.shape)
        mask = None if square else lower_right(seq_q, seq_k, window, query.device)
        return _sdpa(query, key, value, scale, mask)

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
        """See :meth:`AttentionBackend.varlen`."""
        if not _on_gpu(query):
            return self._document_by_document(query, key, value, cu_seqlens_q, cu_seqlens_k, scale, window)
        grouped: dict[str, Any] = {"enable_gqa": query.shape[1] != key.shape[1]} if TOLD_OF_GROUPS else {}
        # A window of (-1, 0) is causal attention, lower-right aligned; the left side does not count the query itself.
        output = varlen_attn(
            query,
            key,
            value,
            cu_seqlens_q,
            cu_seqlens_k,
            max_seqlen_q,
            max_seqlen_k,
            scale=scale,
            window_size=(-1 if window is None else window - 1, 0),
            **grouped,
        )
        assert isinstance(output, torch.Tensor)  # noqa: S101 - a pair only if the log-sum-exp is asked for
        return output

    def _document_by_document(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        cu_seqlens_q: torch.Tensor,
        cu_seqlens_k: torch.Tensor,
        scale: float | None,
        window: int | None,
    ) -> torch.Tensor:
        """A causal block per document, no mask over all tokens; the boundaries are in host memory on a CPU."""
        documents = []
        boundaries = zip(pairwise(cu_seqlens_q.tolist()), pairwise(cu_seqlens_k.tolist()), strict=True)
        for (start_q, end_q), (start_k, end_k) in boundaries:
            if start_q < end_q:
                queries = query[start_q:end_q].unsqueeze(0)
                keys, values = (tensor[start_k:end_k].unsqueeze(0) for tensor in (key, value))
                documents.append(self.causal(queries, keys, values, scale, window).squeeze(0))
        return torch.cat(documents)


class CudnnAttention:
    """cuDNN's kernel, for whole rows: torch offers it neither for documents nor for a lower-right mask."""

    name = "cudnn"

    def causal(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float | None = None,
        window: int | None = None,
    ) -> torch.Tensor:
        """See :meth:`AttentionBackend.causal`; with as many keys as queries and without a window.

        Raises:
            ValueError: there are more keys than queries, or a window.
        """
        if query.shape[1] != key.shape[1] or window is not None:
            raise ValueError("cudnn serves whole rows only: as many keys as queries, no window")
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            return _sdpa(query, key, value, scale)

    def varlen(self, *_arguments: Any, **_options: Any) -> torch.Tensor:
        """Raises ValueError: the choice of a back end passes this one over where documents are masked."""
        raise ValueError("cudnn serves whole rows only, not documents")


def _on_gpu(tensor: torch.Tensor) -> bool:
    return tensor.is_cuda


def _sdpa(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float | None,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """[batch, seq, heads, head_size], causal or masked; for torch, views of [batch, heads, seq, head_size]."""
    return scaled_dot_product_attention(
        query.transpose(1, 2),
        key.transpose(1, 2),
        value.transpose(1, 2),
        attn_mask=mask,
        is_causal=mask is None,
        scale=scale,
        enable_gqa=query.shape[2] != key.shape[2],
    ).transpose(1, 2)


def _row_starts(rows: torch.Tensor) -> torch.Tensor:
    """cu_seqlens of [batch, seq, …], made on its device."""
    batch, seq = rows.shape[:2]
    return torch.arange(0, (batch + 1) * seq, seq, dtype=torch.int32, device=rows.device)
