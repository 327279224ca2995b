"""GPUs and the links between them: the figures that memory and time are estimated with. No torch here.

Peaks and bandwidths are the vendor's; what part of them kernels reach is measured, and its source stands beside it.
"""

from dataclasses import dataclass

from megatron_ext.errors import ConfigError
from megatron_ext.observe.throughput import peak_tflops

# Time that large bf16 products need at least, relative to the peak: cuBLAS, 8192 cubed, reached 769 to 798 TFLOP/s of
# 989 on H100 and H200; on A100 some 260 of 312 (NVIDIA, cuBLAS 11.x performance notes).
HOPPER_GEMM, AMPERE_GEMM = 0.79, 0.83
# Flash attention forward and backward, causal, head size 128, 4 k tokens: FlashAttention-2 on A100 (arXiv 2307.08691,
# figures 4 to 6) and on H100 (35 %, arXiv 2407.08608, abstract), FlashAttention-3 or cuDNN on H100 (the same, figures 5
# and 6: about 55 % forward, 45 % backward).
AMPERE_ATTENTION, HOPPER_ATTENTION, HOPPER_ATTENTION_FLASH2 = 0.55, 0.48, 0.35
# The two calibrated constants: the part of a lone kernel's speed that is left in hours of training, when clocks drop
# under power and kernels wait for each other. Fitted: the published rows have no mean error (``calibration.py``).
AMPERE_SUSTAINED, HOPPER_SUSTAINED = 0.83, 0.72


@dataclass(frozen=True)
class Gpu:
    """One GPU of a node of eight.

    Attributes:
        name: what a person types.
        memory_gib: what CUDA leaves of the card for a process.
        peak_tflops: dense bf16 tensor cores.
        bandwidth: of its memory, bytes/s.
        processors: streaming multiprocessors, over which the tiles of a matrix product are spread.
        gemm_efficiency: part of the peak that a large product reaches.
        attention_efficiency: part of the peak that causal flash attention reaches, forward and backward together.
        sustained: part of both that long training keeps.
        nvlink: bytes/s in one direction to the other GPUs of its node.
        network: bytes/s in one direction of its network card.
    """

    name: str
    memory_gib: float
    peak_tflops: float
    bandwidth: float
    processors: int
    gemm_efficiency: float
    attention_efficiency: float
    sustained: float
    nvlink: float
    network: float


GPUS_PER_NODE = 8
# What NCCL moves of a link's nominal rate with large messages (nccl-tests, PERFORMANCE.md: bus bandwidth).
LINK_EFFICIENCY = 0.8
# What elementwise kernels reach of the memory's nominal rate (STREAM-like copies on A100 and H100: 85 to 92 %).
BANDWIDTH_EFFICIENCY = 0.87


def _ampere(name: str, memory_gib: float, bandwidth: float) -> Gpu:
    """NVIDIA A100 SXM4 data sheet: NVLink 600 GB/s both ways; DGX A100: a 200 Gb/s card for each GPU."""
    peak = peak_tflops("NVIDIA A100", "bf16") or 0.0
    efficiencies = (AMPERE_GEMM, AMPERE_ATTENTION, AMPERE_SUSTAINED)
    return Gpu(name, memory_gib, peak, bandwidth, 108, *efficiencies, nvlink=300e9, network=25e9)


def _hopper(name: str, memory_gib: float, bandwidth: float) -> Gpu:
    """NVIDIA H100 and H200 SXM data sheets: NVLink 900 GB/s both ways; DGX H100: a 400 Gb/s card for each GPU."""
    peak = peak_tflops("NVIDIA H100", "bf16") or 0.0
    efficiencies = (HOPPER_GEMM, HOPPER_ATTENTION, HOPPER_SUSTAINED)
    return Gpu(name, memory_gib, peak, bandwidth, 132, *efficiencies, nvlink=450e9, network=50e9)


GPUS: dict[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        _ampere("a100-40", 39.4, 1.555e12),
        _ampere("a100-80", 79.2, 2.039e12),
        _hopper("h100", 79.2, 3.35e12),
        _hopper("h200", 139.8, 4.8e12),
    )
}


def find_gpu(name: str) -> Gpu:
    """The GPU of this name.

    Raises:
        ConfigError: there is none; the known ones are named.
    """
    if name not in GPUS:
        raise ConfigError(f"--gpu {name}: not known; one of {', '.join(GPUS)}")
    return GPUS[name]
