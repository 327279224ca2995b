from types import SimpleNamespace

import pytest
import torch

from megatron_ext.kernels.rms_norm import RMSNorm

EPS = 0.1  # large enough to show


def build(sequence_parallel: bool, dtype: torch.dtype) -> RMSNorm:
    config = SimpleNamespace(params_dtype=dtype, sequence_parallel=sequence_parallel)
    return RMSNorm(config, 6, eps=EPS)


def test_equals_the_formula_and_its_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5, 2, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, generator=generator, dtype=torch.float64, requires_grad=True)
    norm = build(sequence_parallel=False, dtype=torch.float64)
    with torch.no_grad():
        norm.weight.copy_(weight)
    expected = x / ((x**2).sum(dim=-1, keepdim=True) / 6 + EPS).sqrt() * weight
    torch.testing.assert_close(norm(x), expected, rtol=0, atol=1e-14)
    upstream = torch.randn(5, 2, 6, generator=generator, dtype=torch.float64)
    wanted = torch.autograd.grad(expected, (x, weight), upstream)
    found = torch.autograd.grad(norm(x), (x, norm.weight), upstream)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-14)


@pytest.mark.parametrize("sequence_parallel", [False, True])
def test_the_weight_carries_megatron_core_s_mark(sequence_parallel: bool) -> None:
    """Without it every tensor-parallel rank learns from its own part of the sequence only."""
    weight = build(sequence_parallel, torch.bfloat16).weight
    assert weight.sequence_parallel is sequence_parallel
    assert weight.dtype == torch.bfloat16
    assert torch.equal(weight, torch.ones_like(weight))
