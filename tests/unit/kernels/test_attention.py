"""Core attention against softmax written out in float64, forward and backward."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from megatron.core.transformer.transformer_config import TransformerConfig

from megatron_ext.kernels.attention.base import AttentionBackend
from megatron_ext.kernels.attention.core import DotProductAttention
from megatron_ext.kernels.attention.documents import Documents
from megatron_ext.kernels.attention.reference import ReferenceAttention
from megatron_ext.kernels.attention.sdpa import SdpaFlashAttention

SEQ, BATCH, HEADS, HEAD_SIZE = 13, 3, 4, 8
# In the batch-major flattened tokens: a document of one token, one over a whole row, rows cut in two and in four.
CU_SEQLENS = [0, 1, SEQ, 2 * SEQ, 2 * SEQ + 2, 2 * SEQ + 3, 2 * SEQ + 9, 3 * SEQ]


def written_out(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, documents: list[int] | None, scale: float
) -> torch.Tensor:
    """softmax(q kᵀ · scale) v over the earlier tokens of the same row and document, [seq, batch, heads × size]."""
    ends = documents or [row * SEQ for row in range(BATCH + 1)]
    owner = torch.cat(
        [torch.full((end - start,), index) for index, (start, end) in enumerate(pairwise(ends))]
    )
    owner = owner.view(BATCH, 1, SEQ)
    position = torch.arange(SEQ)
    visible = (owner.transpose(1, 2) == owner) & (position[:, None] >= position)  # [batch, seq, seq]
    group = HEADS // key.shape[2]
    key, value = (tensor.repeat_interleave(group, dim=2) for tensor in (key, value))
    scores = torch.einsum("sbhd,tbhd->bhst", query, key) * scale
    scores = scores.masked_fill(~visible[:, None], -torch.inf)
    weights = scores.exp() / scores.exp().sum(dim=-1, keepdim=True)
    return torch.einsum("bhst,tbhd->sbhd", weights, value).flatten(2)


def packed(documents: list[int]) -> Documents:
    return Documents.on_device(np.array(documents, dtype=np.int32), SEQ, torch.device("cpu"))


@pytest.mark.parametrize("backend", [SdpaFlashAttention(), ReferenceAttention()], ids=lambda one: one.name)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
@pytest.mark.parametrize("documents", [None, CU_SEQLENS], ids=["rows", "documents"])
@pytest.mark.parametrize("kv_heads", [HEADS, 2, 1])
@pytest.mark.parametrize("scale", [None, 0.5])
def test_equals_the_formula(
    *,
    backend: AttentionBackend,
    dtype: torch.dtype,
    tolerance: float,
    documents: list[int] | None,
    kv_heads: int,
    scale: float | None,
) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(SEQ, BATCH, heads, HEAD_SIZE) for heads in (HEADS, kv_heads, kv_heads)]
    exact = [
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes
    ]
    ours = [tensor.detach().to(dtype).requires_grad_() for tensor in exact]
    upstream = torch.randn(SEQ, BATCH, HEADS * HEAD_SIZE, generator=generator, dtype=torch.float64)

    config = TransformerConfig(num_layers=1, hidden_size=HEADS * HEAD_SIZE, num_attention_heads=HEADS)
    attention = DotProductAttention(config, backend=backend, softmax_scale=scale)
    inside = None if documents is None else packed(documents)
    output = attention(*ours, None, packed_seq_params=inside)
    output.backward(upstream.to(dtype))
    expected = written_out(*exact, documents, scale or HEAD_SIZE**-0.5)
    expected.backward(upstream)

    pairs = [(output, expected), *((one.grad, other.grad) for one, other in zip(ours, exact, strict=True))]
    for found, wanted in pairs:
        assert found is not None
        assert wanted is not None
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), wanted, rtol=0, atol=tolerance)
