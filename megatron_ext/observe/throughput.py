"""How fast a run is: seconds and tokens into tokens per second, model FLOP/s and their share of the peak."""

import re
from dataclasses import dataclass

FULL_ATTENTION = "full attention"
CAUSAL_ATTENTION = "causal attention"

# Dense bf16 and fp16 tensor-core peak in TFLOP/s from the vendors' data sheets (those of Hopper and later give twice
# as much, with sparsity). First match wins, so variants stand before the family they belong to.
DENSE_BF16_PEAK_TFLOPS = (
    (r"\bH100 PCIe\b", 756.0),  # NVIDIA H100 PCIe product brief
    (r"\bH100 NVL\b", 835.0),  # NVIDIA H100 data sheet
    (r"\bH200 NVL\b", 835.5),  # NVIDIA H200 data sheet
    (
        r"\b(H100|H200|H800|GH200)\b",
        989.4,
    ),  # NVIDIA H100 (SXM5) data sheet; the others hold the same processor
    (r"\bB200\b", 2250.0),  # NVIDIA DGX B200 data sheet
    (r"\b(A100|A800)\b", 312.0),  # NVIDIA A100 data sheet, PCIe and SXM4 alike
    (r"\bA30\b", 165.0),  # NVIDIA A30 data sheet
    (r"\bA40\b", 149.7),  # NVIDIA A40 data sheet
    (r"\bA10\b", 125.0),  # NVIDIA A10 data sheet
    (r"\bL40S\b", 362.05),  # NVIDIA L40S data sheet
)


def peak_tflops(device_name: str, precision: str) -> float | None:
    """Peak TFLOP/s of one device, or None where it is not known.

    Args:
        device_name: as ``torch.cuda.get_device_name`` returns it.
        precision: ``"bf16"`` or ``"fp16"``; no other has a peak here. A slice of a device (MIG) has none either.
    """
    if precision not in ("bf16", "fp16") or "MIG" in device_name:
        return None
    return next((peak for pattern, peak in DENSE_BF16_PEAK_TFLOPS if re.search(pattern, device_name)), None)


@dataclass(frozen=True)
class Speed:
    """The speed part of a training record, under the record's own names."""

    iteration_time_s: float
    tokens_per_second_per_gpu: float
    model_tflops_per_gpu: float
    mfu: float | None
    flop_convention: str


@dataclass(frozen=True)
class Throughput:
    """Turns measured seconds into the speed of one device.

    Attributes:
        flops_per_token: model FLOPs that training on one token takes.
        flop_convention: ``FULL_ATTENTION`` or ``CAUSAL_ATTENTION``: how ``flops_per_token`` was counted.
        world_size: devices that share the work.
        peak_tflops: peak of one device, or None if unknown; then MFU is None too.
    """

    flops_per_token: float
    flop_convention: str
    world_size: int
    peak_tflops: float | None

    def measure(self, seconds: float, tokens: int, iterations: int = 1) -> Speed:
        """Speed of ``iterations`` steps that took ``seconds`` and read ``tokens`` on all devices together."""
        per_device = tokens / seconds / self.world_size
        tflops = per_device * self.flops_per_token / 1e12
        return Speed(
            iteration_time_s=seconds / iterations,
            tokens_per_second_per_gpu=per_device,
            model_tflops_per_gpu=tflops,
            mfu=None if self.peak_tflops is None else tflops / self.peak_tflops,
            flop_convention=self.flop_convention,
        )
