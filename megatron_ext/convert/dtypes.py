"""Weights in another precision, without turning a number into infinity unnoticed."""

from collections.abc import Sequence

import torch

from megatron_ext.checkpoint.canonical import DTYPES
from megatron_ext.checkpoint.manifest import DtypeName
from megatron_ext.errors import ConversionError

BLOCK = 1 << 22
"""Values that are rounded at a time: checking them takes memory, too."""


def dtype_named(name: DtypeName | None) -> torch.dtype | None:
    """The dtype of an option's value; None keeps each tensor's own.

    Raises:
        ConversionError: there is no such dtype.
    """
    if name is None:
        return None
    if name not in DTYPES:
        raise ConversionError(f"dtype {name!r} is not known; choose one of {', '.join(DTYPES)}")
    return DTYPES[name]


def converted(name: str, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``tensor`` rounded to ``dtype``; the same object where it has that dtype already.

    Raises:
        ConversionError: a finite value becomes infinite, as all beyond 65,504 do in fp16.
    """
    if tensor.dtype is dtype:
        return tensor
    result = torch.empty(tensor.shape, dtype=dtype)
    copy_converted(name, tensor, result)
    return result


def copy_converted(name: str, source: torch.Tensor, target: torch.Tensor) -> None:
    """Fill ``target``, contiguous, with the values of ``source``, rounded to its dtype.

    Raises:
        ConversionError: as for ``converted``.
    """
    for values, place in zip(
        torch.split(source.flatten(), BLOCK), torch.split(target.view(-1), BLOCK), strict=True
    ):
        place.copy_(values)
        if target.dtype is torch.float16 and bool((place.isinf() & values.isfinite()).any()):
            raise ConversionError(f"{name} holds values too large for fp16; choose bf16 or fp32")


def copy_rows(name: str, source: torch.Tensor, places: Sequence[tuple[int, torch.Tensor]]) -> None:
    """Fill each place with rows of ``source``, from the given one; see ``copy_converted``."""
    for row, place in places:
        copy_converted(name, source[row : row + place.shape[0]], place)
