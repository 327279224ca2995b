"""A Hugging Face folder's tensors from before safetensors: ``pytorch_model*.bin``, read without running code."""

import pickle
from collections.abc import Sequence
from pathlib import Path

import torch

from megatron_ext.convert.dtypes import copy_rows
from megatron_ext.convert.rules import Shape
from megatron_ext.convert.safetensors_files import DTYPE_CODES, indexed_files
from megatron_ext.errors import ConversionError

WEIGHTS = "pytorch_model.bin"
INDEX = "pytorch_model.bin.index.json"


class PickledReader:
    """Tensors of ``pytorch_model.bin``, or of several such files with an index.

    Each file is mapped, not read, and unpickled with ``weights_only=True``, which builds tensors and refuses
    whatever else a pickle can name.

    Args:
        folder: holds ``pytorch_model.bin`` or ``pytorch_model.bin.index.json``.

    Raises:
        ConversionError: a file is missing or damaged, of the format before torch 1.6, or holds more than tensors.
    """

    def __init__(self, folder: Path) -> None:
        index = folder / INDEX
        self._places: dict[str, Path] = {}
        self._infos: dict[str, tuple[Shape, torch.dtype]] = {}
        for path in indexed_files(index) if index.is_file() else [folder / WEIGHTS]:
            for name, tensor in _load(path).items():
                if name in self._places:
                    raise ConversionError(f"{name} is both in {self._places[name]} and in {path}")
                self._places[name] = path
                self._infos[name] = (tuple(tensor.shape), tensor.dtype)

    def names(self) -> set[str]:
        """Every tensor in the files."""
        return set(self._places)

    def shape(self, name: str) -> Shape:
        """Shape of a tensor."""
        return self._infos[name][0]

    def dtype(self, name: str) -> torch.dtype:
        """Element type of a tensor.

        Raises:
            ConversionError: it is none that can be trained.
        """
        dtype = self._infos[name][1]
        if dtype not in DTYPE_CODES:
            supported = ", ".join(map(str, DTYPE_CODES))
            raise ConversionError(f"{self._places[name]}: {name} is of type {dtype}; supported: {supported}")
        return dtype

    def read(self, name: str) -> torch.Tensor:
        """One tensor. The file is mapped for it alone: a mapping that stays counts as memory in use."""
        return _load(self._places[name])[name]

    def read_rows(self, name: str, places: Sequence[tuple[int, torch.Tensor]]) -> None:
        """Fill each place with rows of a tensor, from the given one, rounded to the place's dtype."""
        copy_rows(name, self.read(name), places)


def _load(path: Path) -> dict[str, torch.Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ConversionError(
            f"{path}: refused, this file is damaged or was made to run code: {str(error).partition(chr(10))[0]}"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise ConversionError(
            f"{path}: damaged, or older than torch 1.6 (save it again with a newer torch): "
            f"{str(error).partition(chr(10))[0]}"
        ) from error
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in content.items()
    ):
        raise ConversionError(f"{path}: not a table of tensors by name")
    return content
