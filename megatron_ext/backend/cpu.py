"""The CPU over gloo: the same training code as on GPUs, in real processes."""

import platform
import time
from pathlib import Path
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
        """Largest resident set since :meth:`reset_peak_memory` (proc_pid_status(5): VmHWM, in KiB)."""
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        peak = next(line for line in lines if line.startswith("VmHWM:"))
        return int(peak.split()[1]) * KIBIBYTE

    def host_clock(self) -> float:
        """What this thread has computed, the backward pass too: other work on the machine does not count."""
        return time.thread_time()

    def reset_peak_memory(self) -> None:
        """Let Linux forget the largest resident set so far (proc_pid_clear_refs(5))."""
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")

    def recorder(self) -> NoReturn:
        """A CPU has no graphs.

        Raises:
            LaunchError: always.
        """
        raise LaunchError(
            "kernels.cuda_graphs=true needs a GPU, and this process trains on the CPU; set it to false"
        )
