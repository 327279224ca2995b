"""What a training process needs from its device. ``cpu.py`` and ``cuda.py`` are the only places that name one."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

import torch

from megatron_ext.backend.cpu import CpuBackend
from megatron_ext.backend.cuda import CudaBackend
from megatron_ext.errors import LaunchError
from megatron_ext.utils.console import get_logger

logger = get_logger(__name__)

Result = TypeVar("Result")


class Recorder(Protocol):
    """Records what some work queues on a device, so that it can be queued again without the host's part in it."""

    def beside(self) -> AbstractContextManager[None]:
        """Queue what the block does where recordings are made, after all that is queued before it.

        torch runs parts of a backward pass where a model's gradient hooks were registered: a model whose backward pass
        is to be recorded is wrapped, and warmed up, inside.
        """

    def record(self, work: Callable[[], Result]) -> tuple[Result, Callable[[], None]]:
        """Record ``work``, which has run :meth:`beside` before, without computing anything.

        Returns:
            What ``work`` returned, its tensors to be filled by each call of the function that comes with it: that
            reads the tensors which ``work`` read, with the values they have then, and waits for nothing. The memory
            in between is kept as long as that function.
        """


class Backend(Protocol):
    """A device kind with its collectives."""

    collective: str
    """Name of the torch.distributed backend."""
    fused_kernels: bool
    """Whether megatron-core's compiled and CUDA-only paths can run."""
    device: torch.device

    def start(self) -> None:
        """Take the device; call it before megatron-core builds anything."""

    def device_name(self) -> str:
        """The vendor's name, by which peak figures are looked up."""

    def synchronize(self) -> None:
        """Wait until queued work is done, so that a clock can be read."""

    def peak_memory_bytes(self) -> int:
        """Largest memory this process has held since the peak was reset."""

    def host_clock(self) -> float:
        """Seconds by which the host's own work is timed."""

    def reset_peak_memory(self) -> None:
        """Give back what is cached and start to look for the largest anew."""

    def recorder(self) -> Recorder:
        """What records a step as a graph.

        Raises:
            LaunchError: this device has no graphs.
        """


def select_backend(device: str, local_rank: int, local_world_size: int) -> Backend:
    """The backend for ``device``.

    Args:
        device: ``cpu``, ``cuda``, or ``auto``: CUDA where this node has a GPU for each of its processes.
        local_rank: number of this process on its node, which is the number of its GPU.
        local_world_size: processes on this node.

    Raises:
        LaunchError: CUDA is asked for, and this node has fewer GPUs than processes.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "cuda" and gpus < local_world_size:
        raise LaunchError(
            f"device=cuda, but this node has {gpus} GPUs for {local_world_size} processes; "
            f"lower launch.nproc_per_node, or use device=cpu"
        )
    if device == "cuda" or (device == "auto" and gpus >= local_world_size):
        return CudaBackend(local_rank)
    if device == "auto" and gpus > 0:
        logger.warning(f"{gpus} GPUs for {local_world_size} processes on this node: training on the CPU")
    return CpuBackend()
