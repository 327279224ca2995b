"""Host arrays on their way to the device, which nothing waits for."""

from typing import Any

import torch


def transfer(array: Any, device: torch.device) -> torch.Tensor:
    """A numpy array's copy on ``device``; nothing is waited for."""
    return pinned(array, device).to(device, non_blocking=True)


def pinned(array: Any, device: torch.device) -> torch.Tensor:
    """A numpy array as a tensor that can be copied to ``device`` without waiting.

    From pageable memory a copy of more than 64 KiB would wait for all that is queued.
    """
    host = torch.from_numpy(array)
    return host.pin_memory() if device.type == "cuda" else host
