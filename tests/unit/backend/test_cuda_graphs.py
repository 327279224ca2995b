"""The recorder of a GPU: nothing is computed while recording, and each replay reads what the tensors hold then."""

import pytest
import torch

from megatron_ext.backend.cuda import CudaBackend

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_a_replay_computes_with_the_values_of_its_time() -> None:
    backend = CudaBackend(0)
    backend.start()
    recorder = backend.recorder()
    inputs = torch.ones(4, device=backend.device)
    total = torch.zeros(4, device=backend.device)

    def work() -> torch.Tensor:
        doubled = inputs * 2
        total.add_(doubled)
        return doubled.sum()

    with recorder.beside():
        assert work().item() == 8
    result, replay = recorder.record(work)
    assert total.tolist() == [2] * 4
    for step in range(1, 4):
        inputs.fill_(step)
        replay()
        assert result.item() == 8 * step
    assert total.tolist() == [2 + 2 * (1 + 2 + 3)] * 4


def test_a_backward_pass_is_recorded_where_its_hooks_were_registered() -> None:
    """On the default stream they would break the capture: megatron-core registers them when it wraps a model."""
    backend = CudaBackend(0)
    backend.start()
    recorder = backend.recorder()
    weight = torch.nn.Parameter(torch.full((3,), 2.0, device=backend.device))
    main_grad = torch.zeros(3, device=backend.device)
    inputs = torch.ones(3, device=backend.device)

    def accumulate(*_gradients: object) -> None:
        if weight.grad is not None:
            main_grad.add_(weight.grad)
        weight.grad = None

    with recorder.beside():
        accumulator = weight.expand_as(weight).grad_fn.next_functions[0][0]  # type: ignore[union-attr]
        accumulator.register_hook(accumulate)

    def work() -> None:
        (weight * inputs).square().sum().backward()

    with recorder.beside():
        work()
    _, replay = recorder.record(work)
    inputs.fill_(3.0)
    replay()
    assert main_grad.tolist() == [2 * 2.0 * (1 + 9)] * 3
