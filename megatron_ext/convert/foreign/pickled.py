"""Reads files of ``torch.save`` that other frameworks wrote, and runs nothing that is in them.

``weights_only=True`` refuses everything but tensors and plain values. Training frameworks also save their
settings and random states, which refer to classes of their own. Those that are known get a stand-in that does
nothing, under the name that the file asks for: the class itself is never imported.
"""

import argparse
import contextlib
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from megatron_ext.errors import ConversionError


class Ignored:
    """Stands for an object that a conversion has no use for: takes whatever it is given, keeps nothing."""

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


_IGNORED = (
    # random states
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.ndarray",
    "numpy.dtype",
    # values of Megatron-LM's settings
    "megatron.core.enums.ModelType",
    "megatron.core.transformer.enums.AttnBackend",
    "megatron.core.transformer.enums.AttnMaskType",
    "megatron.core.transformer.enums.CudaGraphScope",
    "megatron.core.rerun_state_machine.RerunDiagnostic",
    "megatron.core.rerun_state_machine.RerunMode",
    "megatron.core.rerun_state_machine.RerunState",
    "megatron.model.enums.ModelType",
    "megatron.model.enums.PositionEmbeddingType",
    "megatron.legacy.model.enums.PositionEmbeddingType",
    "pathlib.PosixPath",
    "signal.Signals",
    # DeepSpeed's account of the optimizer's state
    "deepspeed.runtime.fp16.loss_scaler.DynamicLossScaler",
    "deepspeed.runtime.fp16.loss_scaler.LossScaler",
    "deepspeed.runtime.zero.config.ZeroStageEnum",
    "deepspeed.utils.tensor_fragment.fragment_address",
)
# Namespace keeps what it is given as attributes, and does nothing else.
_HARMLESS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    argparse.Namespace,
    *((Ignored, name) for name in _IGNORED),
]
_DAMAGED = (
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    IndexError,
    KeyError,
    OSError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
)


@contextlib.contextmanager
def only_harmless() -> Iterator[None]:
    """Within the block, ``torch.load(weights_only=True)`` knows the names above, and no others.

    Packages add to torch's list for the whole process when they are imported, as megatron-core does.
    """
    others = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            yield
    finally:
        torch.serialization.add_safe_globals(others)


def load(path: Path) -> Any:
    """Content of a file of ``torch.save``; tensors are mapped, so that nothing is read before it is used.

    Raises:
        ConversionError: it is missing or damaged, or asks for something to call that is not on the list.
    """
    if not path.is_file():
        raise ConversionError(f"{path}: no such file; the checkpoint is incomplete")
    try:
        with only_harmless():
            # Before 1.6, torch wrote no zip files; those cannot be mapped.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except _DAMAGED as error:
        reason = next((line for line in str(error).splitlines() if "GLOBAL" in line), "").strip()
        raise ConversionError(
            f"{path}: refused, this file is damaged or asks to run code: {reason or str(error).partition(chr(10))[0]}"
        ) from error
