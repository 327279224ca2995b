"""AdamW on flat buffers: master weights and moments in the precision that memory allows, one pass over all of them.

The update is that of Loshchilov and Hutter, 2019, arXiv 1711.05101, algorithm 2, as in ``torch.optim.AdamW``; it is
computed in fp32 whatever the states are kept in. ``fused/adamw.py`` holds the same as one kernel.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

BLOCK = 1 << 15
"""Values that one program of the kernel updates; a block lies inside one segment."""
CACHED = 2 * BLOCK
"""Values that plain torch updates at a time, so that what lies between its operations stays in a CPU's cache."""
PIECE = 1 << 24
"""Values that are converted at a time where speed does not matter: 64 MiB of each temporary."""
QUIET_NAN = 0x7FC00000
"""Bits of an fp32 value whose upper half is not a number in bf16 either."""


@dataclass(frozen=True)
class FlatParameters:
    """Equally long flat buffers of n values, updated in place.

    Attributes:
        weights: what the model computes with: bf16, fp16 or fp32.
        gradients: fp32 or bf16.
        master: fp32; or int16, the bits that bf16 weights lack (:func:`split_fp32`); None: fp32 weights are their own.
        exp_avg: first moment, fp32 or bf16.
        exp_avg_sq: second moment, fp32 or bf16.
    """

    weights: torch.Tensor
    gradients: torch.Tensor
    master: torch.Tensor | None
    exp_avg: torch.Tensor
    exp_avg_sq: torch.Tensor


@dataclass(frozen=True)
class AdamWStep:
    """One update; ``step`` counts from 1 and corrects the moments' bias towards their zero start."""

    lr: float
    weight_decay: float
    beta1: float
    beta2: float
    eps: float
    step: int

    @property
    def corrections(self) -> tuple[float, float]:
        """``1 - β1^t`` and ``√(1 - β2^t)``."""
        return 1 - self.beta1**self.step, (1 - self.beta2**self.step) ** 0.5


class Segments:
    """Parts of the buffers that take the same update, such as all matrices of a shard.

    Args:
        bounds: first and last + 1 of each part.
    """

    def __init__(self, bounds: Sequence[tuple[int, int]]) -> None:
        self.bounds = tuple(bounds)
        self._blocks: torch.Tensor | None = None

    def slices(self, size: int) -> Iterator[slice]:
        """The parts cut into slices of at most ``size`` values."""
        for start, end in self.bounds:
            for at in range(start, end, size):
                yield slice(at, min(at + size, end))

    def are_multiples_of(self, alignment: int) -> bool:
        """Whether every part starts and ends at a multiple of ``alignment``."""
        return all(bound % alignment == 0 for part in self.bounds for bound in part)

    def blocks(self, device: torch.device) -> torch.Tensor:
        """The parts cut into blocks, int64 [blocks, 2] of start and end; made once."""
        if self._blocks is None:
            cuts = [(part.start, part.stop) for part in self.slices(BLOCK)]
            self._blocks = torch.tensor(cuts, dtype=torch.int64).reshape(-1, 2).to(device)
        return self._blocks


@torch.no_grad()
def adamw_(
    flat: FlatParameters, segments: Segments, update: AdamWStep, grad_scale: torch.Tensor | None = None
) -> None:
    """Update the segments in place: on a GPU in one launch, and nothing is waited for.

    Args:
        flat: weights, gradients and states.
        segments: which values.
        update: learning rate and the like.
        grad_scale: float32 [], what each gradient is multiplied by, such as for clipping; None: 1.
    """
    if flat.weights.is_cuda:
        from megatron_ext.kernels.fused.adamw import launch_adamw  # noqa: PLC0415 - needs Triton

        launch_adamw(flat, segments, update, grad_scale)
    else:
        adamw_reference_(flat, segments, update, grad_scale)


@torch.no_grad()
def adamw_reference_(
    flat: FlatParameters, segments: Segments, update: AdamWStep, grad_scale: torch.Tensor | None = None
) -> None:
    """The same in plain torch, part by part."""
    correction1, correction2 = update.corrections
    for part in segments.slices(CACHED):
        gradient = flat.gradients[part].float()
        if grad_scale is not None:
            gradient = gradient * grad_scale
        master, exp_avg, exp_avg_sq = load_master(flat, part), flat.exp_avg[part], flat.exp_avg_sq[part]
        first = exp_avg.float().lerp_(gradient, 1 - update.beta1)
        second = exp_avg_sq.float().mul_(update.beta2).addcmul_(gradient, gradient, value=1 - update.beta2)
        denominator = (second.sqrt() / correction2).add_(update.eps)
        master.mul_(1 - update.lr * update.weight_decay)
        master.addcdiv_(first, denominator, value=-update.lr / correction1)
        exp_avg.copy_(first)
        exp_avg_sq.copy_(second)
        store_master(flat, part, master)


def load_master(flat: FlatParameters, part: slice) -> torch.Tensor:
    """The fp32 weights of a part; a view of them where they are kept as such."""
    if flat.master is None:
        return flat.weights[part]
    if flat.master.dtype == torch.int16:
        return join_fp32(flat.weights[part], flat.master[part])
    return flat.master[part]


def store_master(flat: FlatParameters, part: slice, master: torch.Tensor) -> None:
    """Keep fp32 weights [part], and round them to the model's."""
    if flat.master is not None and flat.master.dtype == torch.int16:
        weights, remainder = split_fp32(master)
        flat.weights[part].copy_(weights)
        flat.master[part].copy_(remainder)
        return
    if flat.master is not None:
        flat.master[part].copy_(master)
    flat.weights[part].copy_(master)


def take_weights(flat: FlatParameters) -> None:
    """Let the master weights be those of the model, a piece at a time: all of a shard in fp32 may not fit beside it."""
    if flat.master is not None:
        for part in Segments([(0, flat.weights.numel())]).slices(PIECE):
            store_master(flat, part, flat.weights[part].float())


def split_fp32(master: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """An fp32 value as its nearest bf16 value and an int16 remainder: master bits = bf16 bits · 2¹⁶ + remainder.

    The sum is that of 32-bit integers modulo 2³², so every number comes back bit for bit. Exact ties go to the larger
    magnitude, where a conversion would choose the even one: -2¹⁵ is a remainder and 2¹⁵ is none. What is not a number
    becomes one and the same such value: rounding up the bits of another could make it a zero in bf16.
    """
    bits = torch.where(master.isnan(), QUIET_NAN, master.view(torch.int32))
    remainder = bits.to(torch.int16)
    high = (bits - remainder.to(torch.int32)) >> 16
    return high.to(torch.int16).view(torch.bfloat16), remainder


def join_fp32(weights: torch.Tensor, remainder: torch.Tensor) -> torch.Tensor:
    """The fp32 value that :func:`split_fp32` took apart, as a new tensor."""
    high = weights.contiguous().view(torch.int16).to(torch.int32) << 16
    return (high + remainder.to(torch.int32)).view(torch.float32)
