"""Attention one query at a time, which no back end does, and inputs for it."""

from itertools import pairwise

import torch
from torch import Tensor

Shape = tuple[int, ...]


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float | None, window: int | None) -> Tensor:
    """[seq_q, heads, size] × [seq_k, kv_heads, size]: query i sees the keys up to i + seq_k - seq_q."""
    (seq_q, heads, size), (seq_k, kv_heads, _) = query.shape, key.shape
    factor = 1 / size**0.5 if scale is None else scale
    rows = []
    for index in range(seq_q):
        end = index + seq_k - seq_q + 1
        seen = slice(0 if window is None else max(0, end - window), end)
        for head in range(heads):
            group = head * kv_heads // heads
            weights = (key[seen, group] @ query[index, head] * factor).exp()
            rows.append(weights @ value[seen, group] / weights.sum())
    return torch.stack(rows).view(query.shape) if rows else query * 0


def attend_rows(query: Tensor, key: Tensor, value: Tensor, scale: float | None, window: int | None) -> Tensor:
    rows = zip(query, key, value, strict=True)
    return torch.stack([attend(*row, scale, window) for row in rows])


def attend_documents(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts_q: list[int],
    starts_k: list[int],
    *,
    scale: float | None,
    window: int | None,
) -> Tensor:
    spans = zip(pairwise(starts_q), pairwise(starts_k), strict=True)
    return torch.cat(
        [attend(query[q:r], key[k:m], value[k:m], scale, window) for (q, r), (k, m) in spans],
    )


def inputs(*shapes: Shape, seed: int = 0) -> list[Tensor]:
    """In float64, and wanting gradients."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


def like(tensors: list[Tensor], dtype: torch.dtype, device: str = "cpu") -> list[Tensor]:
    return [tensor.detach().to(device, dtype).requires_grad_() for tensor in tensors]


def assert_same(
    ours: list[Tensor], output: Tensor, exact: list[Tensor], expected: Tensor, atol: float
) -> None:
    """Compare the outputs and, under one random upstream gradient, the gradients of all inputs."""
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=expected.dtype)
    expected.backward(upstream)
    output.backward(upstream.to(output))
    found = [output, *(tensor.grad for tensor in ours)]
    wanted = [expected, *(tensor.grad for tensor in exact)]
    for mine, other in zip(found, wanted, strict=True):
        assert mine is not None
        assert other is not None
        assert mine.dtype == ours[0].dtype
        torch.testing.assert_close(mine.double().cpu(), other, rtol=atol, atol=atol)
