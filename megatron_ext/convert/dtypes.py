"""Weights in another precision, without turning a number into infinity unnoticed."""

from collections.abc import Sequence

import torch

from megatron_ext.checkpoint.canonical import DTYPES
from megatron_ext.checkpoint.manifest import DtypeName
from megatron_ext.checkpoint.values import round_into
from megatron_ext.errors import ConversionError


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
    copy_rows(name, tensor, [(0, result)])
    return result


def copy_rows(name: str, source: torch.Tensor, places: Sequence[tuple[int, torch.Tensor]]) -> None:
    """Fill each place with rows of ``source``, from the given one, rounded to the place's dtype.

    Raises:
        ConversionError: as for ``converted``.
    """
    try:
        for row, place in places:
            round_into(source[row : row + place.shape[0]], place)
    except OverflowError as error:
        raise ConversionError(f"{name} {error}") from error
