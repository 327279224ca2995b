import weakref

import torch

from megatron_ext.kernels.recompute import recompute_when_needed


def test_a_value_is_freed_and_computed_again() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    computed = []

    def compute() -> torch.Tensor:
        computed.append(1)
        return x.detach() * 2

    value = x * 2
    kept = weakref.ref(value)
    with recompute_when_needed(value, compute):
        output = value @ weight
    del value
    assert kept() is None
    assert not computed
    upstream = torch.randn_like(output)
    output.backward(upstream)
    assert len(computed) == 1
    torch.testing.assert_close(weight.grad, (2 * x.detach()).t() @ upstream)
    torch.testing.assert_close(x.grad, 2 * upstream @ weight.detach().t())
