"""A GPU that is not there: tensors have shapes and no data, collectives return at once. For looking at a run's step.

The code that runs is the GPU's. What it would read from the device raises or, under the counter of ``train/trace``, is
counted.
"""

from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch.optim import optimizer
from torch.testing._internal.distributed.fake_pg import FakeStore

from megatron_ext.backend.megatron_on_cpu import patch_megatron_core

FAKE = "fake"
"""torch's process group of one process that stands for many."""


class DataFreeBackend:
    """One GPU of a cluster, without its data.

    Args:
        capability: the compute capability it claims.
    """

    collective = FAKE
    fused_kernels = True

    def __init__(self, capability: tuple[int, int]) -> None:
        self.device = torch.device("meta")
        self._capability = capability

    def start(self) -> None:
        """Redirect what asks for CUDA, in this process for good."""
        patch_megatron_core(self.device)
        torch.Tensor.is_cuda = property(lambda tensor: tensor.device.type == "meta")  # type: ignore[assignment]
        torch.cuda.get_device_capability = lambda *_args: self._capability
        optimizer._get_fused_kernels_supported_devices = lambda: [self.device.type]  # type: ignore[attr-defined]

    def join(self, rank: int, world_size: int) -> None:
        """Be process ``rank`` of ``world_size``; one that has been another before may be the next."""
        if dist.is_initialized():
            dist.destroy_process_group()
        elif self.device.type not in dist.Backend.backend_capability[FAKE]:
            dist.Backend.backend_capability[FAKE].append(self.device.type)
            _fake_every_group()
        dist.init_process_group(FAKE, rank=rank, world_size=world_size, store=FakeStore())

    def device_name(self) -> str:
        """Of no GPU in particular."""
        return "a GPU without data"

    def synchronize(self) -> None:
        """Nothing is queued."""

    def peak_memory_bytes(self) -> int:
        """Nothing is held."""
        return 0

    def host_clock(self) -> float:
        """Nothing is timed."""
        return 0.0

    def reset_peak_memory(self) -> None:
        """Nothing is held."""

    def recorder(self) -> NoReturn:
        """A graph replays what a device has computed.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("without a device there are no graphs")


def _fake_every_group() -> None:
    """megatron-core asks for gloo by name beside the device's own groups."""
    new_group = dist.new_group

    def fake_group(*args: Any, **kwargs: Any) -> Any:
        return new_group(*args, **{**kwargs, "backend": FAKE})

    dist.new_group = fake_group
