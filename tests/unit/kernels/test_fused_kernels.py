"""Forward and backward of each fused kernel against its formula in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from megatron_ext.kernels import reference
from megatron_ext.kernels.fused.cross_entropy import VocabularyPart, cross_entropy
from megatron_ext.kernels.fused.rms_norm import add_rms_norm, forked_rms_norm, rms_norm
from megatron_ext.kernels.fused.rope import rope_packed
from megatron_ext.kernels.fused.swiglu import swiglu

EPS = 0.1  # large enough to show
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 2**-7}
"""Rounding of one result, relative to the largest; the interpreter cuts bf16 off where a GPU rounds."""

dtypes = pytest.mark.parametrize("dtype", BOUNDS, ids=["fp32", "bf16"])


def compare(
    fused: Callable[..., Any], plain: Callable[..., Any], inputs: list[torch.Tensor], *others: Any
) -> None:
    """Results, and gradients for random upstream gradients: ``fused`` as given, ``plain`` in float64."""
    inputs = [one.detach().requires_grad_() for one in inputs]
    exact = [one.detach().double().cpu().requires_grad_() for one in inputs]
    results, wanted = fused(*inputs, *others), plain(*exact, *others)
    results, wanted = (one if isinstance(one, tuple) else (one,) for one in (results, wanted))
    upstream = [torch.randn_like(one) for one in results]
    torch.autograd.backward(results, upstream)
    torch.autograd.backward(wanted, [one.double().cpu() for one in upstream])
    pairs = [
        *zip(results, wanted, strict=True),
        *((a.grad, b.grad) for a, b in zip(inputs, exact, strict=True)),
    ]
    for found, right in pairs:
        assert found.dtype == inputs[0].dtype
        assert found.shape == right.shape
        error = (found.double().cpu() - right).abs().max() / right.abs().max()
        assert error < BOUNDS[found.dtype], error


def random(device: torch.device, dtype: torch.dtype, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, device=device).to(dtype)


@dtypes
@pytest.mark.parametrize("shape", [(5, 2, 80), (1, 1, 1), (37, 64), (3, 5120)])
def test_rms_norm(device: torch.device, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    inputs = [random(device, dtype, *shape), random(device, dtype, shape[-1])]
    compare(rms_norm, reference.rms_norm, inputs, EPS)


@dtypes
@pytest.mark.parametrize("shape", [(5, 2, 80), (3, 5120)])
def test_rms_norm_beside_another_use(
    device: torch.device, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    inputs = [random(device, dtype, *shape), random(device, dtype, shape[-1])]
    compare(forked_rms_norm, reference.forked_rms_norm, inputs, EPS)


@dtypes
@pytest.mark.parametrize("shape", [(5, 2, 80), (3, 5120)])
def test_rms_norm_of_a_sum(device: torch.device, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x, residual = random(device, dtype, *shape), random(device, dtype, *shape)
    if dtype == torch.bfloat16:  # a sum that bf16 holds exactly, or the formula would start from another one
        x, residual = ((one * 16).round() / 16 for one in (x, residual))
    compare(add_rms_norm, reference.add_rms_norm, [x, residual, random(device, dtype, shape[-1])], EPS)


@dtypes
@pytest.mark.parametrize("shape", [(5, 2, 2 * 43), (2, 2 * 3001)])
def test_swiglu(device: torch.device, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    compare(swiglu, reference.swiglu, [2 * random(device, dtype, *shape)])


@dtypes
@pytest.mark.parametrize(
    ("groups", "heads_per_group", "size"), [(3, 1, 80), (2, 4, 16), (1, 5, 6), (7, 1, 8), (2, 3, 256)]
)
def test_rope(device: torch.device, dtype: torch.dtype, groups: int, heads_per_group: int, size: int) -> None:
    torch.manual_seed(0)
    seq_length, batch = 5, 2
    packed = random(device, dtype, seq_length, batch, groups * (heads_per_group + 2) * size)
    table = reference.rope_table(torch.rand(seq_length, 1, 1, size // 2) * 100)

    def fused(packed: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return rope_packed(packed, table.to(device), groups, heads_per_group)

    def plain(packed: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return reference.rope_packed(packed, table, groups, heads_per_group)

    compare(fused, plain, [packed])


@pytest.mark.parametrize("order", [(1, 0, 2, 3), (2, 0, 1, 3), (3, 1, 2, 0)])
def test_rope_takes_gradients_as_attention_lays_them_out(
    device: torch.device, order: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    seq_length, batch, groups, heads_per_group, size = 5, 2, 2, 3, 8
    packed = random(device, torch.float32, seq_length, batch, groups * (heads_per_group + 2) * size)
    table = reference.rope_table(torch.rand(seq_length, size // 2, device=device) * 100)
    back = [order.index(axis) for axis in range(4)]
    gradients = []
    for laid_out in (False, True):
        packed = packed.detach().requires_grad_()
        results = rope_packed(packed, table, groups, heads_per_group)
        torch.manual_seed(1)
        upstream = [torch.randn_like(one) for one in results]
        if laid_out:
            upstream = [one.permute(order).contiguous().permute(back) for one in upstream]
            assert not upstream[0].is_contiguous()
        torch.autograd.backward(results, upstream)
        gradients.append(packed.grad)
    assert torch.equal(*gradients)


def test_inputs_that_are_views(device: torch.device) -> None:
    """Kernels count on dense rows; a transposed tensor must not be read as if it were one."""
    torch.manual_seed(0)
    transposed = random(device, torch.float32, 4, 10, 6).transpose(0, 1)
    compare(rms_norm, reference.rms_norm, [transposed, random(device, torch.float32, 6)], EPS)
    compare(swiglu, reference.swiglu, [transposed])


def test_shapes_that_do_not_fit_are_refused(device: torch.device) -> None:
    """Or a kernel would read out of bounds."""
    x = torch.zeros(3, 2, 12, device=device)
    with pytest.raises(ValueError, match="rows of 12"):
        rms_norm(x, torch.ones(11, device=device), EPS)
    with pytest.raises(ValueError, match="residual"):
        add_rms_norm(x, x[:2], torch.ones(12, device=device), EPS)
    with pytest.raises(ValueError, match="halves"):
        swiglu(x[..., :5])
    with pytest.raises(ValueError, match="even size"):
        rope_packed(x[..., :9], torch.zeros(3, 1, 1, 3, device=device), 1, 1)
    with pytest.raises(ValueError, match="3 positions"):
        rope_packed(x, torch.zeros(2, 1, 1, 4, device=device), 1, 1)
    with pytest.raises(ValueError, match="labels for 6 rows"):
        cross_entropy(x, torch.zeros(5, dtype=torch.int64, device=device), VocabularyPart(0, 12))
    with pytest.raises(ValueError, match="13 real columns"):
        cross_entropy(x, torch.zeros(3, 2, dtype=torch.int64, device=device), VocabularyPart(0, 13))
