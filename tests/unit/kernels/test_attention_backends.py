"""The back ends that run on a CPU, and with a GPU all others, against attention one query at a time in float64."""

from collections.abc import Callable
from itertools import accumulate

import numpy as np
import pytest
import torch
from attention_formula import assert_same, attend_documents, attend_rows, inputs, like
from hypothesis import given, settings
from hypothesis import strategies as st
from megatron.core.transformer.transformer_config import TransformerConfig

from megatron_ext.errors import ConfigError
from megatron_ext.kernels.attention.base import AttentionBackend, AttentionNeeds
from megatron_ext.kernels.attention.choice import SUPPORT, choose_attention
from megatron_ext.kernels.attention.core import DotProductAttention
from megatron_ext.kernels.attention.documents import Documents
from megatron_ext.kernels.attention.reference import ReferenceAttention
from megatron_ext.kernels.attention.sdpa import SdpaFlashAttention

ON_CPU = [ReferenceAttention(), SdpaFlashAttention()]
HEADS = 4
DTYPES = [(torch.float64, 1e-11), (torch.float32, 2e-5), (torch.bfloat16, 6e-2)]

every_backend = pytest.mark.parametrize("backend", ON_CPU, ids=lambda backend: backend.name)
every_kv_heads = pytest.mark.parametrize("kv_heads", [HEADS, 2, 1], ids=["mha", "gqa", "mqa"])
every_head_size = pytest.mark.parametrize("head_size", [64, 80, 128, 256])


def check_rows(
    backend: AttentionBackend,
    shape: tuple[int, int, int, int, int],
    dtype: torch.dtype,
    atol: float,
    *,
    scale: float | None = None,
    window: int | None = None,
    device: str = "cpu",
) -> None:
    batch, seq_q, seq_k, kv_heads, size = shape
    keys = (batch, seq_k, kv_heads, size)
    exact = inputs((batch, seq_q, HEADS, size), keys, keys)
    ours = like(exact, dtype, device)
    output = backend.causal(*ours, scale, window)
    assert_same(ours, output, exact, attend_rows(*exact, scale, window), atol)


def check_documents(
    backend: AttentionBackend,
    lengths: list[tuple[int, int]],
    kv_heads: int,
    dtype: torch.dtype,
    atol: float,
    *,
    size: int = 16,
    scale: float | None = None,
    window: int | None = None,
    device: str = "cpu",
) -> None:
    """``lengths``: queries and keys of each document."""
    starts_q = [0, *accumulate(queries for queries, _ in lengths)]
    starts_k = [0, *accumulate(keys for _, keys in lengths)]
    keys = (starts_k[-1], kv_heads, size)
    exact = inputs((starts_q[-1], HEADS, size), keys, keys)
    ours = like(exact, dtype, device)
    boundaries = [torch.tensor(starts, dtype=torch.int32, device=device) for starts in (starts_q, starts_k)]
    longest = max(queries for queries, _ in lengths), max(keys for _, keys in lengths)
    output = backend.varlen(*ours, *boundaries, *longest, scale, window)
    expected = attend_documents(*exact, starts_q, starts_k, scale=scale, window=window)
    assert_same(ours, output, exact, expected, atol)


@every_backend
@every_kv_heads
@every_head_size
@pytest.mark.parametrize(("dtype", "atol"), DTYPES)
def test_rows(
    *, backend: AttentionBackend, kv_heads: int, head_size: int, dtype: torch.dtype, atol: float
) -> None:
    check_rows(backend, (2, 5, 5, kv_heads, head_size), dtype, atol)


@every_backend
@every_kv_heads
@pytest.mark.parametrize("seq_k", [4, 5, 11])
@pytest.mark.parametrize(("scale", "window"), [(0.3, None), (None, 1), (0.5, 3), (None, 99)])
def test_the_last_query_sees_the_last_key(
    *, backend: AttentionBackend, kv_heads: int, seq_k: int, scale: float | None, window: int | None
) -> None:
    check_rows(backend, (2, 4, seq_k, kv_heads, 16), torch.float64, 1e-11, scale=scale, window=window)


DOCUMENTS = {
    "one": [(9, 9)],
    "single tokens": [(1, 1)] * 5,
    "rows": [(6, 6), (6, 6)],
    "mixed": [(1, 1), (7, 7), (3, 3), (1, 1)],
    "parts of rows": [(0, 4), (2, 5), (1, 1), (4, 9), (0, 0), (0, 3)],  # what a context-parallel rank holds
}
every_document = pytest.mark.parametrize("lengths", DOCUMENTS.values(), ids=DOCUMENTS.keys())


@every_backend
@every_kv_heads
@every_document
@pytest.mark.parametrize("window", [None, 2])
def test_documents(
    *, backend: AttentionBackend, kv_heads: int, lengths: list[tuple[int, int]], window: int | None
) -> None:
    check_documents(backend, lengths, kv_heads, torch.float64, 1e-11, scale=0.4, window=window)


@every_backend
@settings(deadline=None, max_examples=25)
@given(
    lengths=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), min_size=1, max_size=6).filter(
        lambda lengths: any(queries for queries, _ in lengths)
    ),
    kv_heads=st.sampled_from([1, 2, 4]),
    window=st.none() | st.integers(1, 8),
)
def test_documents_of_any_lengths(
    *, backend: AttentionBackend, lengths: list[tuple[int, int]], kv_heads: int, window: int | None
) -> None:
    spans = [(queries, queries + before) for queries, before in lengths]
    check_documents(backend, spans, kv_heads, torch.float64, 1e-11, window=window)


@every_backend
def test_documents_that_are_rows_equal_rows(*, backend: AttentionBackend) -> None:
    query, key, value = inputs((3, 7, HEADS, 16), (3, 7, 2, 16), (3, 7, 2, 16))
    starts = torch.arange(0, 22, 7, dtype=torch.int32)
    packed = (tensor.flatten(0, 1) for tensor in (query, key, value))
    inside = backend.varlen(*packed, starts, starts, 7, 7)
    torch.testing.assert_close(inside.view(query.shape), backend.causal(query, key, value))


@every_backend
def test_strided_inputs_need_no_copy(*, backend: AttentionBackend) -> None:
    """As they come from megatron-core: views of [seq, batch, heads, size], values a part of the fused qkv."""
    (fused,) = inputs((5, 2, HEADS, 3 * 16))
    views = [tensor.transpose(0, 1) for tensor in fused.split(16, dim=-1)]
    expected = backend.causal(*(tensor.contiguous() for tensor in views))
    torch.testing.assert_close(backend.causal(*views), expected)


def on_this_gpu(name: str, head_size: int, *, whole_rows: bool) -> AttentionBackend:
    needs = AttentionNeeds(
        torch.cuda.get_device_capability(),
        torch.bfloat16,
        head_size,
        documents=not whole_rows,
        longer_keys=not whole_rows,
        window=not whole_rows,
    )
    try:
        return choose_attention(name, needs)
    except ConfigError as error:
        pytest.skip(str(error))


def with_a_gpu(test: Callable[..., None]) -> Callable[..., None]:
    skipped = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
    return pytest.mark.gpu(skipped(pytest.mark.parametrize("name", SUPPORT)(test)))


@with_a_gpu
@every_kv_heads
@every_head_size
def test_rows_on_a_gpu(*, name: str, kv_heads: int, head_size: int) -> None:
    backend = on_this_gpu(name, head_size, whole_rows=True)
    check_rows(backend, (2, 65, 65, kv_heads, head_size), torch.bfloat16, 6e-2, device="cuda")


@with_a_gpu
@every_kv_heads
@every_head_size
def test_parts_and_documents_on_a_gpu(*, name: str, kv_heads: int, head_size: int) -> None:
    backend = on_this_gpu(name, head_size, whole_rows=False)
    for window in (None, 33):
        shape = (2, 65, 130, kv_heads, head_size)
        check_rows(backend, shape, torch.bfloat16, 6e-2, window=window, device="cuda")
    for lengths in DOCUMENTS.values():
        check_documents(backend, lengths, kv_heads, torch.bfloat16, 6e-2, size=head_size, device="cuda")


@with_a_gpu
def test_nothing_waits_for_the_gpu(*, name: str) -> None:
    """Documents included: the host knows all it needs of them."""
    config = TransformerConfig(num_layers=1, hidden_size=HEADS * 64, num_attention_heads=HEADS)
    attention = DotProductAttention(config, backend=on_this_gpu(name, 64, whole_rows=False))
    query, key, value = like(
        inputs((32, 2, HEADS, 64), (32, 2, 2, 64), (32, 2, 2, 64)), torch.bfloat16, "cuda"
    )
    starts = np.array([0, 5, 32, 33, 64], dtype=np.int32)
    for mode in ("default", "error"):  # the first call compiles and loads
        torch.cuda.set_sync_debug_mode(mode)
        try:
            documents = Documents.on_device(starts, 32, query.device)
            for inside in (documents, None):
                attention(query, key, value, None, packed_seq_params=inside).sum().backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
