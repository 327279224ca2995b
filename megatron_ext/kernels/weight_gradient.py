"""Weight gradients of linear layers, added straight to the main gradient: no gradient tensor, no rounding to bf16.

megatron-core calls an extension of apex for it, ``fused_weight_gradient_mlp_cuda``, which is one cuBLAS product with
fp32 output. torch has that product (``addmm`` with ``out_dtype``; 2.11 takes a sum in fp32, which 2.8 refused), so it
takes apex's place everywhere: nothing to compile, and the CPU has it too.
"""

from types import SimpleNamespace

import torch
from megatron.core.tensor_parallel import layers

HELD = "holds_gradient"
"""Attribute of the main gradients that products are added to: False until the first product of a step."""


def accumulate_weight_gradient(
    inputs: torch.Tensor, grad_outputs: torch.Tensor, main_grad: torch.Tensor
) -> None:
    """``main_grad += grad_outputsᵀ · inputs``, in place, summed in fp32 where ``main_grad`` is fp32.

    After :func:`forget_weight_gradient` it is ``main_grad = …``: what was there is not read.

    Args:
        inputs: [tokens, in], fp32, fp16 or bf16.
        grad_outputs: [tokens, out], of the same dtype.
        main_grad: [out, in], fp32 or the dtype of the others.
    """
    transposed, held = grad_outputs.t(), int(getattr(main_grad, HELD, True))
    if main_grad.dtype == inputs.dtype:
        main_grad.addmm_(transposed, inputs, beta=held)
    elif main_grad.is_cuda:
        torch.addmm(main_grad, transposed, inputs, beta=held, out_dtype=main_grad.dtype, out=main_grad)
    else:
        main_grad.addmm_(transposed.to(main_grad.dtype), inputs.to(main_grad.dtype), beta=held)
    setattr(main_grad, HELD, True)


def forget_weight_gradient(main_grad: torch.Tensor) -> bool:
    """Let the next product overwrite ``main_grad``, which then need not be zeroed: two passes over it less.

    Returns:
        Whether it can: False where no product has been added yet, so that the gradient may come from elsewhere.
    """
    known = hasattr(main_grad, HELD)
    if known:
        setattr(main_grad, HELD, False)
    return known


def install_weight_gradient_accumulation() -> None:
    """Let megatron-core's layers find it under apex's names; calling it again changes nothing."""
    layers.fused_weight_gradient_mlp_cuda = SimpleNamespace(
        wgrad_gemm_accum_fp32=accumulate_weight_gradient, wgrad_gemm_accum_fp16=accumulate_weight_gradient
    )
    layers._grad_accum_fusion_available = True
