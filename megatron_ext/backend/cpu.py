"""The CPU over gloo: the same training code as on GPUs, in real processes."""

import platform
import resource
import time
from typing import NoReturn

import torch

from megatron_ext.errors import LaunchError

KIBIBYTE = 1024


class CpuBackend:
    """This process's share of the CPU."""

    collective = "gloo"
    fused_kernels = False

    def __init__(self) -> None:
        self.device = torch.device("cpu")

    def start(self) -> None:
        """Redirect megatron-core's CUDA calls."""
        # Here, because it imports megatron-core: seconds that generating text does without.
        from megatron_ext.backend.megatron_on_cpu import patch_megatron_core  # noqa: PLC0415

        patch_megatron_core()

    def device_name(self) -> str:
        """The processor's architecture."""
        return f"CPU {platform.machine()}"

    def synchronize(self) -> None:
        """Nothing is queued."""

    def peak_memory_bytes(self) -> int:
        """Largest resident set (Linux counts it in KiB)."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIBIBYTE

    def host_clock(self) -> float:
        """What this thread has computed, the backward pass too: other work on the machine does not count."""
        return time.thread_time()

    def reset_peak_memory(self) -> None:
        """Linux keeps the largest resident set of a process for as long as it lives."""

    def recorder(self) -> NoReturn:
        """A CPU has no graphs.

        Raises:
            LaunchError: always.
        """
        raise LaunchError(
            "kernels.cuda_graphs=true needs a GPU, and this process trains on the CPU; set it to false"
        )
