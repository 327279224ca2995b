"""Weight gradients added in place, against float64."""

import pytest
import torch

from megatron_ext.kernels.weight_gradient import accumulate_weight_gradient, forget_weight_gradient

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
        ],
    ),
]
PAIRS = [
    (torch.float32, torch.float32, 1e-6),
    (torch.bfloat16, torch.float32, 1e-6),
    (torch.float16, torch.float32, 1e-6),
    (torch.bfloat16, torch.bfloat16, 2**-8),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "main_dtype", "tolerance"), PAIRS)
def test_three_micro_batches_add_up(
    device: str, dtype: torch.dtype, main_dtype: torch.dtype, tolerance: float
) -> None:
    """In fp32 the products of 16-bit inputs are not rounded to 16 bits on the way: fp32's own error is left."""
    generator = torch.Generator().manual_seed(3)
    main_grad = torch.randn(24, 40, generator=generator).to(device, main_dtype)
    expected, pointer = main_grad.double(), main_grad.data_ptr()
    for _ in range(3):
        inputs = torch.randn(64, 40, generator=generator).to(device, dtype)
        grad_outputs = torch.randn(64, 24, generator=generator).to(device, dtype)
        accumulate_weight_gradient(inputs, grad_outputs, main_grad)
        expected = expected + grad_outputs.double().t() @ inputs.double()
    assert (main_grad.data_ptr(), main_grad.dtype) == (pointer, main_dtype)
    scale = float(expected.abs().max())
    assert float((main_grad.double() - expected).abs().max()) < 3 * tolerance * scale


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "main_dtype", "tolerance"), PAIRS)
def test_the_first_product_of_a_step_overwrites(
    device: str, dtype: torch.dtype, main_dtype: torch.dtype, tolerance: float
) -> None:
    """Whatever stands there, also what is not a number; the second adds, and so does one without a step's start."""
    main_grad = torch.ones(2, 3, device=device, dtype=main_dtype)
    inputs, grad_outputs = (torch.randn(5, size, device=device).to(dtype) for size in (3, 2))
    product = grad_outputs.double().t() @ inputs.double()

    def found(expected: torch.Tensor) -> bool:
        accumulate_weight_gradient(inputs, grad_outputs, main_grad)
        return bool((main_grad.double() - expected).abs().max() < 4 * tolerance * expected.abs().max())

    assert not forget_weight_gradient(main_grad), "no product has been added: it may come from elsewhere"
    assert found(1 + product)
    for stale in (7.0, float("nan")):
        main_grad.fill_(stale)
        assert forget_weight_gradient(main_grad)
        assert found(product)
        assert found(2 * product)
