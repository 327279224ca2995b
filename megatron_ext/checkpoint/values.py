"""The values of a tensor as bytes: where they lie in memory, read from where they lie in a file, and rounded."""

import os
from collections.abc import Iterator
from typing import BinaryIO

import torch

# Values that are rounded at a time, as what is yet to be rounded takes memory, too. No more than torch gives to one
# thread: several would wait for each other, and for the cores that read and write.
_BLOCK = 1 << 15


def as_bytes(tensor: torch.Tensor) -> memoryview:
    """The memory of a contiguous tensor on the CPU."""
    return tensor.view(-1).view(torch.uint8).numpy().data


def read_values(stream: BinaryIO, start: int, place: torch.Tensor, dtype: torch.dtype) -> None:
    """Fill a contiguous tensor with the values of a file from byte ``start``, without a map of it.

    Args:
        stream: of the file.
        start: first byte.
        place: what is filled.
        dtype: of the values in the file; they are rounded to that of ``place``.

    Raises:
        EOFError: the file ends before the tensor does.
        OverflowError: as for ``round_into``.
    """
    if place.dtype == dtype:
        _read_bytes(stream, start, place)
        return
    block = torch.empty(min(_BLOCK, place.numel()), dtype=dtype)
    for part in torch.split(place.view(-1), _BLOCK):
        values = block[: part.numel()]
        _read_bytes(stream, start, values)
        round_into(values, part)
        start += values.nbytes


def _read_bytes(stream: BinaryIO, start: int, place: torch.Tensor) -> None:
    rest = as_bytes(place)
    while rest:
        count = os.preadv(stream.fileno(), [rest], start)
        if count == 0:
            raise EOFError(f"the file ends at byte {start:,}, {len(rest):,} too early")
        rest, start = rest[count:], start + count


def drop_pages(stream: BinaryIO, start: int, num_bytes: int) -> None:
    """Let what was read once leave the page cache, to make room for what is written."""
    os.posix_fadvise(stream.fileno(), start, num_bytes, os.POSIX_FADV_DONTNEED)


def round_into(source: torch.Tensor, target: torch.Tensor) -> None:
    """Fill ``target`` with the values of ``source``, of the same shape, rounded to its dtype.

    Raises:
        OverflowError: a finite value becomes infinite, as all beyond 65,504 do in fp16.
    """
    for values, place in zip(_blocks(source), _blocks(target), strict=True):
        place.copy_(values)
        if target.dtype is torch.float16 and bool((place.isinf() & values.isfinite()).any()):
            raise OverflowError("holds values too large for fp16; choose bf16 or fp32")


def _blocks(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """Groups of rows, of tensors of any strides."""
    while tensor.dim() > 1 and tensor.shape[0] == 1:
        tensor = tensor[0]
    yield from torch.split(tensor, max(1, _BLOCK * tensor.shape[0] // max(1, tensor.numel())))
