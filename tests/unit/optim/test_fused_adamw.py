"""torch's fused AdamW as megatron-core gets it, against the plain one in float64."""

import copy

import pytest
import torch

from megatron_ext.optim.fused_adamw import FusedAdamW

SETTINGS = {"lr": 1e-2, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}


def weights(dtype: torch.dtype) -> list[torch.nn.Parameter]:
    draw = torch.Generator().manual_seed(1)
    return [
        torch.nn.Parameter(torch.randn(size, dtype=torch.float32, generator=draw).to(dtype))
        for size in ((33, 5), (7,))
    ]


def give_gradients(parameters: list[torch.nn.Parameter], step: int, factor: float = 1.0) -> None:
    draw = torch.Generator().manual_seed(step)
    for one in parameters:
        one.grad = torch.randn(one.shape, dtype=torch.float32, generator=draw).to(one.dtype) * factor


def test_equals_plain_adamw_on_multiplied_gradients() -> None:
    ours, theirs = weights(torch.float32), weights(torch.float64)
    fused = FusedAdamW(ours, adam_w_mode=True, **SETTINGS)
    plain = torch.optim.AdamW(theirs, foreach=False, **SETTINGS)
    for step in range(20):
        factor = 1.0 if step % 3 == 0 else 0.5 / (step + 1)
        give_gradients(ours, step)
        give_gradients(theirs, step, factor)
        if factor != 1.0:
            fused.grad_factor = torch.tensor(factor)
        fused.step()
        plain.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=2e-6, atol=2e-6)


def test_goes_on_fused_from_the_state_of_a_plain_one() -> None:
    theirs = weights(torch.float32)
    plain = torch.optim.AdamW(theirs, foreach=False, **SETTINGS)
    give_gradients(theirs, 0)
    plain.step()
    ours = copy.deepcopy(theirs)
    fused = FusedAdamW(ours, adam_w_mode=True, **SETTINGS)
    fused.load_state_dict(copy.deepcopy(plain.state_dict()))
    assert [group["fused"] for group in fused.param_groups] == [True]
    give_gradients(ours, 1)
    give_gradients(theirs, 1)
    fused.step()
    plain.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_refuses_to_be_another_optimizer() -> None:
    with pytest.raises(ValueError, match="adam_w_mode"):
        FusedAdamW(weights(torch.float32), adam_w_mode=False)
