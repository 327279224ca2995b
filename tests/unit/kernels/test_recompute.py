import gc
import weakref

import torch

from megatron_ext.kernels.recompute import discard_until_backward


def test_a_value_is_freed_and_computed_again() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    filled = []

    def fill(target: torch.Tensor) -> None:
        filled.append(1)
        target.untyped_storage().copy_((x.detach() * 2).untyped_storage())

    value = x * 2
    output = value @ weight
    discard_until_backward(value, output, fill)
    assert value.untyped_storage().nbytes() == 0
    assert not filled
    upstream = torch.randn_like(output)
    output.backward(upstream)
    assert len(filled) == 1
    torch.testing.assert_close(weight.grad, (2 * x.detach()).t() @ upstream)
    torch.testing.assert_close(x.grad, 2 * upstream @ weight.detach().t())


def test_without_a_backward_pass_nothing_is_freed() -> None:
    with torch.no_grad():
        value = torch.ones(3)
        discard_until_backward(value, value * 2, lambda _target: None)
    assert value.tolist() == [1, 1, 1]


def test_nothing_is_held_after_the_backward_pass() -> None:
    """While the output is: megatron-core's schedules keep it during the next micro-batch's forward pass."""
    source = torch.randn(4, 3)
    weight = torch.randn(3, 2, requires_grad=True)
    value = (weight.sum() * source).detach() + 0 * weight.sum()
    output = value @ weight
    held = [weakref.ref(value.untyped_storage()), weakref.ref(source.untyped_storage())]

    def fill(target: torch.Tensor, source: torch.Tensor = source) -> None:
        target.untyped_storage().copy_(source.untyped_storage())

    discard_until_backward(value, output, fill)
    del value, source, fill
    gc.collect()
    assert all(storage() is not None for storage in held)
    output.sum().backward()
    gc.collect()
    assert [storage() for storage in held] == [None, None]
    assert output.requires_grad
