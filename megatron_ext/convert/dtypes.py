"""Weights in another precision, without turning a number into infinity unnoticed."""

import torch

from megatron_ext.checkpoint.canonical import DTYPES
from megatron_ext.checkpoint.manifest import DtypeName
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
    result = tensor.to(dtype)
    if dtype is torch.float16 and bool((result.isinf() & tensor.isfinite()).any()):
        raise ConversionError(f"{name} holds values too large for fp16; choose bf16 or fp32")
    return result
