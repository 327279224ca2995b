"""AdamW in Triton: each program goes through a block of every flat buffer, reading and writing each value once."""

import torch
import triton
import triton.language as tl

from megatron_ext.kernels.adamw import QUIET_NAN, AdamWStep, FlatParameters, Segments

TILE, WARPS = 1024, 8
"""Values updated at a time, four for each thread: 46 registers. With 16, 220 leave one program to a processor."""
ALIGNMENT = tl.constexpr(16)
"""Bounds that are multiples of this let a thread move its values in one piece; megatron-core's are of 64."""


@triton.jit
def _split(value: tl.tensor, NAN_BITS: tl.constexpr) -> tuple[tl.tensor, tl.tensor]:
    """:func:`megatron_ext.kernels.adamw.split_fp32`."""
    bits = tl.where(value != value, NAN_BITS, value.to(tl.int32, bitcast=True))  # noqa: PLR0124
    remainder = bits.to(tl.int16)
    high = ((bits - remainder.to(tl.int32)) >> 16).to(tl.int16)
    return high.to(tl.bfloat16, bitcast=True), remainder


@triton.jit
def _adamw_kernel(
    weights: tl.tensor,
    gradients: tl.tensor,
    master: tl.tensor,
    exp_avg: tl.tensor,
    exp_avg_sq: tl.tensor,
    blocks: tl.tensor,
    grad_scale: tl.tensor,
    keep: tl.tensor,
    step_size: tl.tensor,
    correction2: tl.tensor,
    one_minus_beta1: tl.tensor,
    beta2: tl.tensor,
    one_minus_beta2: tl.tensor,
    eps: tl.tensor,
    OWN_MASTER: tl.constexpr,
    REMAINDER: tl.constexpr,
    SCALED: tl.constexpr,
    NAN_BITS: tl.constexpr,
    ALIGNED: tl.constexpr,
    SIZE: tl.constexpr,
) -> None:
    program = tl.program_id(0).to(tl.int64)
    start = tl.load(blocks + 2 * program)
    end = tl.load(blocks + 2 * program + 1)
    if ALIGNED:
        start = tl.multiple_of(start, ALIGNMENT)
        end = tl.multiple_of(end, ALIGNMENT)
    for tile in range(start, end, SIZE):
        at = tile + tl.arange(0, SIZE)
        inside = at < end
        weight = tl.load(weights + at, mask=inside)
        if OWN_MASTER:
            value = weight.to(tl.float32)
        elif REMAINDER:
            high = weight.to(tl.int16, bitcast=True).to(tl.int32) << 16
            value = (high + tl.load(master + at, mask=inside).to(tl.int32)).to(tl.float32, bitcast=True)
        else:
            value = tl.load(master + at, mask=inside)

        gradient = tl.load(gradients + at, mask=inside, other=0.0).to(tl.float32)
        if SCALED:
            gradient = gradient * tl.load(grad_scale)
        first = tl.load(exp_avg + at, mask=inside, other=0.0).to(tl.float32)
        second = tl.load(exp_avg_sq + at, mask=inside, other=0.0).to(tl.float32)
        first = first + one_minus_beta1 * (gradient - first)
        second = beta2 * second + one_minus_beta2 * gradient * gradient
        denominator = tl.div_rn(tl.sqrt_rn(second), correction2) + eps
        value = value * keep - step_size * tl.div_rn(first, denominator)

        tl.store(exp_avg + at, first.to(exp_avg.dtype.element_ty), mask=inside)
        tl.store(exp_avg_sq + at, second.to(exp_avg_sq.dtype.element_ty), mask=inside)
        if REMAINDER:
            weight, remainder = _split(value, NAN_BITS)
            tl.store(master + at, remainder, mask=inside)
            tl.store(weights + at, weight, mask=inside)
        else:
            if not OWN_MASTER:
                tl.store(master + at, value, mask=inside)
            tl.store(weights + at, value.to(weights.dtype.element_ty), mask=inside)


def launch_adamw(
    flat: FlatParameters, segments: Segments, update: AdamWStep, grad_scale: torch.Tensor | None = None
) -> None:
    """As :func:`megatron_ext.kernels.adamw.adamw_`, on the GPU that holds the buffers."""
    blocks = segments.blocks(flat.weights.device)
    if len(blocks) == 0:
        return
    correction1, correction2 = update.corrections
    _adamw_kernel[(len(blocks),)](
        flat.weights,
        flat.gradients,
        flat.weights if flat.master is None else flat.master,  # unused where there is none
        flat.exp_avg,
        flat.exp_avg_sq,
        blocks,
        flat.exp_avg if grad_scale is None else grad_scale,  # likewise
        1 - update.lr * update.weight_decay,
        update.lr / correction1,
        correction2,
        1 - update.beta1,
        update.beta2,
        1 - update.beta2,
        update.eps,
        OWN_MASTER=flat.master is None,
        REMAINDER=flat.master is not None and flat.master.dtype == torch.int16,
        SCALED=grad_scale is not None,
        NAN_BITS=QUIET_NAN,
        ALIGNED=segments.are_multiples_of(ALIGNMENT.value),
        SIZE=TILE,
        num_warps=WARPS,
    )
