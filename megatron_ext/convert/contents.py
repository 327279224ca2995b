"""What is in a model folder, of either kind, and how two of them differ; one tensor of each in memory."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from megatron_ext.checkpoint.canonical import VOCABULARY_KEYS, CanonicalReader
from megatron_ext.checkpoint.manifest import FILE_NAME as MANIFEST
from megatron_ext.checkpoint.manifest import Manifest
from megatron_ext.checkpoint.store import LATEST, CheckpointStore
from megatron_ext.convert import assets
from megatron_ext.convert.hf_slices import HFSlices
from megatron_ext.convert.hf_source import open_weights
from megatron_ext.errors import ConversionError

STACKED = "decoder.layers."
"""Begins the keys of canonical tensors that hold all layers, on axis 0."""
BLOCK = 1 << 22
"""Values that are compared at a time, in fp64."""


class TensorTable(Protocol):
    """Canonical tensors by key; see ``CanonicalReader``."""

    def keys(self) -> list[str]:
        """Names of the tensors."""
        ...

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of the whole tensor."""
        ...

    def dtype(self, key: str) -> torch.dtype:
        """Element type of a tensor."""
        ...

    def read_slice(self, key: str, offsets: Sequence[int], sizes: Sequence[int]) -> torch.Tensor:
        """A box of a tensor, on the CPU."""
        ...


class HFTable:
    """The tensors of a Hugging Face folder under their own names; any architecture.

    Args:
        folder: with weights.

    Raises:
        ConversionError: the weights are missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._source = open_weights(folder)

    def keys(self) -> list[str]:
        """Names of the tensors, sorted, layer 10 after layer 9."""
        return sorted(
            self._source.names(), key=lambda name: re.sub(r"\d+", lambda digits: digits[0].zfill(6), name)
        )

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return self._source.shape(key)

    def dtype(self, key: str) -> torch.dtype:
        """Element type of a tensor."""
        return self._source.dtype(key)

    def read_slice(self, key: str, offsets: Sequence[int], sizes: Sequence[int]) -> torch.Tensor:
        """A box of a tensor, on the CPU, in the file's pages."""
        box = tuple(slice(start, start + size) for start, size in zip(offsets, sizes, strict=True))
        return self._source.read(key)[box]


@dataclass(frozen=True)
class Contents:
    """A model folder that was opened.

    Attributes:
        folder: the Hugging Face folder, or one ``iter_…`` folder.
        tensors: under the names that the folder's kind has for them.
        manifest: of a checkpoint; None for a Hugging Face folder.
        config: content of ``config.json``; of a checkpoint, as it was imported, empty if it was not.
    """

    folder: Path
    tensors: TensorTable
    manifest: Manifest | None
    config: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> "Contents":
        """Read everything but the values.

        Args:
            path: a run's checkpoint folder (its latest), one ``iter_…`` folder, or a Hugging Face folder.

        Raises:
            CheckpointError: the checkpoint is damaged or unsafe.
            ConversionError: it is neither, or the Hugging Face folder is damaged.
        """
        if (path / assets.CONFIG).is_file():
            return cls(path, HFTable(path), None, assets.read_config(path))
        if (
            not any((path / name).is_file() for name in (MANIFEST, LATEST))
            and not CheckpointStore(path).all()
        ):
            raise ConversionError(
                f"{path}: neither a checkpoint ({LATEST} or {MANIFEST}) nor a Hugging Face folder "
                f"({assets.CONFIG})"
            )
        folder = CheckpointStore.resolve(path)
        carried = folder / assets.FOLDER
        config = assets.read_config(carried) if (carried / assets.CONFIG).is_file() else {}
        return cls(folder, CanonicalReader(folder), Manifest.read(folder), config)

    def canonical(self) -> TensorTable:
        """The tensors under canonical names, whichever kind of folder it is.

        Raises:
            ConversionError: a Hugging Face folder is of a model that cannot be converted.
        """
        return HFSlices(self.folder) if self.manifest is None else self.tensors

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of a tensor, without rows that pad the vocabulary."""
        shape = self.tensors.shape(key)
        if self.manifest is None or key not in VOCABULARY_KEYS:
            return shape
        return (min(shape[0], self.manifest.model.vocab_size), *shape[1:])


@dataclass(frozen=True)
class Difference:
    """How one tensor differs between two folders.

    Attributes:
        what: in words.
        largest: largest absolute difference of two values; None where shapes differ or one side lacks the tensor.
    """

    key: str
    what: str
    largest: float | None = None


def pieces(table: TensorTable, key: str, shape: Sequence[int]) -> Iterator[tuple[str, torch.Tensor]]:
    """A tensor, or each layer of a stacked one, under a name of its own, read one at a time."""
    offsets = [0] * len(shape)
    if not key.startswith(STACKED):
        yield key, table.read_slice(key, offsets, shape)
        return
    for layer in range(shape[0]):
        yield f"{key}[{layer}]", table.read_slice(key, [layer, *offsets[1:]], [1, *shape[1:]])[0]


def norm(tensor: torch.Tensor) -> float:
    """Euclidean norm, summed in fp64."""
    squares = (float(block.double().square().sum()) for block in torch.split(tensor.flatten(), BLOCK))
    return math.sqrt(math.fsum(squares)) if tensor.isfinite().all() else math.nan


def differences(first: Contents, second: Contents) -> Iterator[Difference | None]:
    """Compare tensor by tensor, as canonical tensors where the kinds differ; None for each that is identical.

    Padding of the vocabulary is left out: it follows from a layout. Identical means the same bits.
    """
    same_kind = (first.manifest is None) == (second.manifest is None)
    ours, theirs = (side.tensors if same_kind else side.canonical() for side in (first, second))
    here, there = set(ours.keys()), set(theirs.keys())
    for key in sorted(here | there):
        if key not in here or key not in there:
            yield Difference(key, f"missing in {(first if key not in here else second).folder}")
            continue
        shapes = (_shape(first, ours, key), _shape(second, theirs, key))
        if shapes[0] != shapes[1]:
            yield Difference(key, f"shape {list(shapes[0])} and {list(shapes[1])}")
            continue
        yield _compared(key, shapes[0], ours, theirs)


def _shape(side: Contents, table: TensorTable, key: str) -> tuple[int, ...]:
    return side.shape(key) if table is side.tensors else table.shape(key)


def _compared(key: str, shape: Sequence[int], ours: TensorTable, theirs: TensorTable) -> Difference | None:
    types = (ours.dtype(key), theirs.dtype(key))
    identical, largest = types[0] == types[1], 0.0
    for (_, mine), (_, other) in zip(pieces(ours, key, shape), pieces(theirs, key, shape), strict=True):
        for a, b in zip(torch.split(mine.flatten(), BLOCK), torch.split(other.flatten(), BLOCK), strict=True):
            if types[0] == types[1] and torch.equal(a.view(torch.uint8), b.view(torch.uint8)):
                continue
            identical = False
            distance = float((a.double() - b.double()).abs().max())
            largest = distance if math.isnan(distance) else max(largest, distance)
    if identical:
        return None
    what = "values" if types[0] == types[1] else f"dtype {_name(types[0])} and {_name(types[1])}"
    return Difference(key, what, largest)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
