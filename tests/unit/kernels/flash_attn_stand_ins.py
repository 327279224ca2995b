"""Functions with the signatures of attention kernels that need a GPU, computing on the CPU.

The signatures are those of flash-attn 4.0.0b36 (flash_attn/cute/interface.py), flash-attn 3
(hopper/flash_attn_interface.py) and flash-attn 2.8 (flash_attn/flash_attn_interface.py). What a function is told about
masks, windows and scales it does, whatever it is; only a right call gives causal attention.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

Window = tuple[int | None, int | None]


def masked(query: Tensor, key: Tensor, value: Tensor, scale: float | None, window: Window) -> Tensor:
    """[seq, heads, size]; each query sees so many keys to the left and right of its own, None or -1: all of them."""
    seq_q, seq_k, group = len(query), len(key), query.shape[1] // key.shape[1]
    left, right = (seq_k if side is None or side < 0 else side for side in window)
    own = torch.arange(seq_q)[:, None] + seq_k - seq_q
    seen = (torch.arange(seq_k) >= own - left) & (torch.arange(seq_k) <= own + right)
    key, value = (tensor.repeat_interleave(group, dim=1) for tensor in (key, value))
    scores = torch.einsum("qhd,khd->hqk", query, key) * (query.shape[-1] ** -0.5 if scale is None else scale)
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, -1e30).softmax(-1), value)


def masked_rows(query: Tensor, key: Tensor, value: Tensor, **told: Any) -> Tensor:
    assert query.ndim == key.ndim == value.ndim == 4
    return torch.stack([masked(*row, **told) for row in zip(query, key, value, strict=True)])


def masked_documents(
    tensors: tuple[Tensor, ...], starts: tuple[Any, Any], longest: tuple[Any, Any], **told: Any
) -> Tensor:
    outputs, spans = [], [list(pairwise(one.tolist())) for one in starts]
    for one, most, its_spans in zip(starts, longest, spans, strict=True):
        assert one.dtype == torch.int32
        assert isinstance(most, int)
        assert most >= max(end - start for start, end in its_spans)
    for (q, r), (k, m) in zip(*spans, strict=True):
        query, key, value = tensors
        outputs.append(masked(query[q:r], key[k:m], value[k:m], **told))
    return torch.cat(outputs)


def told(softmax_scale: float | None, causal: bool, window_size: Window) -> dict[str, Any]:
    return {"scale": softmax_scale, "window": (window_size[0], 0) if causal else window_size}


def flash2() -> dict[str, Callable[..., Any]]:
    def flash_attn_func(  # noqa: PLR0917
        q: Tensor,
        k: Tensor,
        v: Tensor,
        dropout_p: float = 0.0,
        softmax_scale: float | None = None,
        causal: bool = False,
        window_size: Window = (-1, -1),
        softcap: float = 0.0,
        alibi_slopes: Tensor | None = None,
        deterministic: bool = False,
        return_attn_probs: bool = False,
    ) -> Tensor:
        assert (dropout_p, softcap, alibi_slopes, deterministic, return_attn_probs) == (
            0,
            0,
            None,
            False,
            False,
        )
        return masked_rows(q, k, v, **told(softmax_scale, causal, window_size))

    def flash_attn_varlen_func(  # noqa: PLR0917
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cu_seqlens_q: Tensor,
        cu_seqlens_k: Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        dropout_p: float = 0.0,
        softmax_scale: float | None = None,
        causal: bool = False,
        window_size: Window = (-1, -1),
        softcap: float = 0.0,
        alibi_slopes: Tensor | None = None,
        deterministic: bool = False,
        return_attn_probs: bool = False,
        block_table: Tensor | None = None,
    ) -> Tensor:
        assert (dropout_p, softcap, alibi_slopes, deterministic, return_attn_probs) == (
            0,
            0,
            None,
            False,
            False,
        )
        assert block_table is None
        starts, longest = (cu_seqlens_q, cu_seqlens_k), (max_seqlen_q, max_seqlen_k)
        return masked_documents((q, k, v), starts, longest, **told(softmax_scale, causal, window_size))

    return {"flash_attn_func": flash_attn_func, "flash_attn_varlen_func": flash_attn_varlen_func}


def flash3() -> dict[str, Callable[..., Any]]:
    def flash_attn_func(  # noqa: PLR0917
        q: Tensor,
        k: Tensor,
        v: Tensor,
        softmax_scale: float | None = None,
        causal: bool = False,
        qv: Tensor | None = None,
        q_descale: Tensor | None = None,
        k_descale: Tensor | None = None,
        v_descale: Tensor | None = None,
        window_size: Window = (-1, -1),
        attention_chunk: int = 0,
        softcap: float = 0.0,
        num_splits: int = 1,
        pack_gqa: bool | None = None,
        deterministic: bool = False,
        sm_margin: int = 0,
        return_attn_probs: bool = False,
    ) -> Tensor:
        assert (qv, q_descale, k_descale, v_descale, pack_gqa) == (None,) * 5
        assert (attention_chunk, softcap, num_splits, deterministic, sm_margin) == (0, 0, 1, False, 0)
        assert not return_attn_probs
        return masked_rows(q, k, v, **told(softmax_scale, causal, window_size))

    def flash_attn_varlen_func(  # noqa: PLR0917
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cu_seqlens_q: Tensor,
        cu_seqlens_k: Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        seqused_q: Tensor | None = None,
        seqused_k: Tensor | None = None,
        softmax_scale: float | None = None,
        causal: bool = False,
        qv: Tensor | None = None,
        q_descale: Tensor | None = None,
        k_descale: Tensor | None = None,
        v_descale: Tensor | None = None,
        window_size: Window = (-1, -1),
        attention_chunk: int = 0,
        softcap: float = 0.0,
        num_splits: int = 1,
        pack_gqa: bool | None = None,
        deterministic: bool = False,
        sm_margin: int = 0,
        return_attn_probs: bool = False,
    ) -> Tensor:
        assert (seqused_q, seqused_k, qv, q_descale, k_descale, v_descale, pack_gqa) == (None,) * 7
        assert (attention_chunk, softcap, num_splits, deterministic, sm_margin) == (0, 0, 1, False, 0)
        assert not return_attn_probs
        starts, longest = (cu_seqlens_q, cu_seqlens_k), (max_seqlen_q, max_seqlen_k)
        return masked_documents((q, k, v), starts, longest, **told(softmax_scale, causal, window_size))

    return {"flash_attn_func": flash_attn_func, "flash_attn_varlen_func": flash_attn_varlen_func}


def flash4() -> dict[str, Callable[..., Any]]:
    """Both return the log-sum-exp as well; of the arguments behind the window none may be given."""

    def flash_attn_func(  # noqa: PLR0917
        q: Tensor,
        k: Tensor,
        v: Tensor,
        qv: Tensor | None = None,
        gather_kv_indices: Tensor | None = None,
        softmax_scale: float | None = None,
        causal: bool = False,
        window_size: Window = (None, None),
    ) -> tuple[Tensor, None]:
        assert (qv, gather_kv_indices) == (None, None)
        assert -1 not in window_size
        return masked_rows(q, k, v, **told(softmax_scale, causal, window_size)), None

    def flash_attn_varlen_func(  # noqa: PLR0917
        q: Tensor,
        k: Tensor,
        v: Tensor,
        qv: Tensor | None = None,
        cu_seqlens_q: Tensor | None = None,
        cu_seqlens_k: Tensor | None = None,
        max_seqlen_q: int | None = None,
        max_seqlen_k: int | None = None,
        min_seqlen_k: int | None = None,
        seqused_q: Tensor | None = None,
        seqused_k: Tensor | None = None,
        gather_kv_indices: Tensor | None = None,
        page_table: Tensor | None = None,
        softmax_scale: float | None = None,
        causal: bool = False,
        window_size: Window = (None, None),
    ) -> tuple[Tensor, None]:
        assert (qv, min_seqlen_k, seqused_q, seqused_k, gather_kv_indices, page_table) == (None,) * 6
        assert -1 not in window_size
        starts, longest = (cu_seqlens_q, cu_seqlens_k), (max_seqlen_q, max_seqlen_k)
        return masked_documents((q, k, v), starts, longest, **told(softmax_scale, causal, window_size)), None

    return {"flash_attn_func": flash_attn_func, "flash_attn_varlen_func": flash_attn_varlen_func}
