"""The values of a tensor as bytes: where they lie in memory, and read from where they lie in a file."""

import os
from typing import BinaryIO

import torch


def as_bytes(tensor: torch.Tensor) -> memoryview:
    """The memory of a contiguous tensor on the CPU."""
    return tensor.view(-1).view(torch.uint8).numpy().data


def read_values(stream: BinaryIO, start: int, place: torch.Tensor) -> None:
    """Fill a contiguous tensor with the bytes of a file from ``start``, without a map of it.

    Raises:
        EOFError: the file ends before the tensor does.
    """
    rest = as_bytes(place)
    while rest:
        count = os.preadv(stream.fileno(), [rest], start)
        if count == 0:
            raise EOFError(f"the file ends at byte {start:,}, {len(rest):,} too early")
        rest, start = rest[count:], start + count


def drop_pages(stream: BinaryIO, start: int, num_bytes: int) -> None:
    """Let what was read once leave the page cache, to make room for what is written."""
    os.posix_fadvise(stream.fileno(), start, num_bytes, os.POSIX_FADV_DONTNEED)
