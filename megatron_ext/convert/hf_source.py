"""The weights of a Hugging Face folder, in whichever kind of file they are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch

from megatron_ext.convert import pickled_files, safetensors_files
from megatron_ext.convert.pickled_files import PickledReader
from megatron_ext.convert.rules import Shape
from megatron_ext.convert.safetensors_files import SafetensorsReader
from megatron_ext.errors import ConversionError


class TensorSource(Protocol):
    """Tensors by name; shapes and dtypes are known without reading values."""

    def names(self) -> set[str]:
        """Every tensor there is."""
        ...

    def shape(self, name: str) -> Shape:
        """Shape of a tensor."""
        ...

    def dtype(self, name: str) -> torch.dtype:
        """Element type of a tensor; refuses those that cannot be trained."""
        ...

    def read(self, name: str) -> torch.Tensor:
        """One tensor, backed by the file where it can be."""
        ...

    def read_rows(self, name: str, places: Sequence[tuple[int, torch.Tensor]]) -> None:
        """Fill each place with rows of a tensor, from the given one, rounded to the place's dtype."""
        ...


def open_weights(folder: Path) -> TensorSource:
    """Safetensors where there are any, else ``pytorch_model*.bin``.

    Raises:
        ConversionError: there is neither, or a file is missing or damaged.
    """
    for kind, reader in ((safetensors_files, SafetensorsReader), (pickled_files, PickledReader)):
        if (folder / kind.INDEX).is_file() or (folder / kind.WEIGHTS).is_file():
            source: TensorSource = reader(folder)
            return source
    raise ConversionError(
        f"{folder}: no weights: neither {safetensors_files.WEIGHTS} nor {pickled_files.WEIGHTS}, "
        "nor an index of several such files"
    )
