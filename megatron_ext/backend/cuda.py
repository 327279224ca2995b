"""NVIDIA GPUs over NCCL."""

import time

import torch


class CudaBackend:
    """One GPU of this node."""

    collective = "nccl"
    fused_kernels = True

    def __init__(self, local_rank: int) -> None:
        self.device = torch.device("cuda", local_rank)

    def start(self) -> None:
        """Make the GPU current, for megatron-core allocates on the current device."""
        torch.cuda.set_device(self.device)

    def device_name(self) -> str:
        """For example ``NVIDIA H100 80GB HBM3``."""
        return torch.cuda.get_device_name(self.device)

    def synchronize(self) -> None:
        """Wait for every queued kernel."""
        torch.cuda.synchronize(self.device)

    def peak_memory_bytes(self) -> int:
        """Largest memory the allocator has reserved."""
        return torch.cuda.max_memory_reserved(self.device)

    def host_clock(self) -> float:
        """Wall-clock time: the backward pass is issued by threads of its own."""
        return time.perf_counter()

    def reset_peak_memory(self) -> None:
        """Empty the allocator's cache, then forget the peak."""
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
