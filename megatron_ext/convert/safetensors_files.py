"""A Hugging Face folder's tensors: read by name, written shard by shard, one tensor in memory at a time."""

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from megatron_ext.checkpoint.values import as_bytes, drop_pages, read_values
from megatron_ext.convert.rules import Shape
from megatron_ext.errors import ConversionError

MAX_SHARD_BYTES = 5_000_000_000
"""Hugging Face's own limit of a file."""
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
DTYPE_CODES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
"""Types of weights that can be trained, under their names in a header."""
_DTYPES = {code: dtype for dtype, code in DTYPE_CODES.items()}


@dataclass(frozen=True)
class TensorInfo:
    """What a safetensors header says of a tensor."""

    name: str
    dtype: torch.dtype
    shape: Shape

    @property
    def num_bytes(self) -> int:
        """Size of the values."""
        return self.dtype.itemsize * torch.Size(self.shape).numel()


class Stored(NamedTuple):
    """Where a file holds a tensor: ``start`` is the first byte of its values."""

    shape: Shape
    code: str
    start: int


class SafetensorsReader:
    """Tensors of a Hugging Face folder, in one file or in shards with an index.

    Args:
        folder: holds ``model.safetensors`` or ``model.safetensors.index.json``.

    Raises:
        ConversionError: there is neither, or a shard is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._files = {path: _headers(path) for path in _weight_files(folder)}
        self._places: dict[str, Path] = {}
        for path, infos in self._files.items():
            for name in infos:
                if name in self._places:
                    raise ConversionError(f"{name} is both in {self._places[name]} and in {path}")
                self._places[name] = path

    def names(self) -> set[str]:
        """Every tensor in the files."""
        return set(self._places)

    def shape(self, name: str) -> Shape:
        """Shape of a tensor, from the header."""
        return self._files[self._places[name]][name].shape

    def dtype(self, name: str) -> torch.dtype:
        """Element type of a tensor.

        Raises:
            ConversionError: it is none that can be trained.
        """
        code = self._files[self._places[name]][name].code
        if code not in _DTYPES:
            supported = ", ".join(_DTYPES)
            raise ConversionError(f"{self._places[name]}: {name} is of type {code}; supported: {supported}")
        return _DTYPES[code]

    def read(self, name: str) -> torch.Tensor:
        """One tensor. The file is opened for it alone: a mapping that stays counts as memory in use."""
        path = self._places[name]
        try:
            with safe_open(path, framework="pt") as stream:
                tensor: torch.Tensor = stream.get_tensor(name)
                return tensor
        except (SafetensorError, OSError) as error:
            raise ConversionError(f"{path}: cannot read {name}: {error}") from error

    def read_rows(self, name: str, places: Sequence[tuple[int, torch.Tensor]]) -> None:
        """Fill each place with rows of a tensor, from the given one; its values are rounded to the place's dtype.

        Nothing is mapped, and what was read leaves the page cache to what is written.

        Raises:
            ConversionError: the file has become shorter, or a value does not fit the dtype.
        """
        path, dtype, shape = self._places[name], self.dtype(name), self.shape(name)
        start, row_bytes = self._files[path][name].start, dtype.itemsize * math.prod(shape[1:])
        try:
            with path.open("rb") as stream:
                for row, place in places:
                    read_values(stream, start + row * row_bytes, place, dtype)
                drop_pages(stream, start, shape[0] * row_bytes)
        except OverflowError as error:
            raise ConversionError(f"{name} {error}") from error
        except (EOFError, OSError) as error:
            raise ConversionError(f"{path}: cannot read {name}: {error}") from error


def write_shards(
    folder: Path,
    infos: Sequence[TensorInfo],
    tensors: Iterable[tuple[str, torch.Tensor]],
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> list[Path]:
    """Write tensors under Hugging Face's file names, with an index if there are several files.

    Args:
        folder: exists.
        infos: what ``tensors`` will yield, in that order.
        tensors: names and values; taken one at a time.
        max_shard_bytes: a file takes another tensor up to this size.
    """
    shards = _plan(infos, max_shard_bytes)
    width = len(shards)
    names = (
        [WEIGHTS]
        if width == 1
        else [f"model-{i:05d}-of-{width:05d}.safetensors" for i in range(1, width + 1)]
    )
    source = iter(tensors)
    for name, shard in zip(names, shards, strict=True):
        _write_file(folder / name, shard, itertools.islice(source, len(shard)))
    if width > 1:
        weight_map = {info.name: name for name, shard in zip(names, shards, strict=True) for info in shard}
        index = {"metadata": {"total_size": sum(info.num_bytes for info in infos)}, "weight_map": weight_map}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return [folder / name for name in names]


def _plan(infos: Sequence[TensorInfo], max_shard_bytes: int) -> list[list[TensorInfo]]:
    shards: list[list[TensorInfo]] = [[]]
    size = 0
    for info in infos:
        if shards[-1] and size + info.num_bytes > max_shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(info)
        size += info.num_bytes
    return shards


def _write_file(path: Path, infos: Sequence[TensorInfo], tensors: Iterator[tuple[str, torch.Tensor]]) -> None:
    """One safetensors file: u64 length of a JSON header, the header padded to 8 bytes, then the values."""
    # save_file of the safetensors package wants every tensor of the file in memory.
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for info in infos:
        start, end = end, end + info.num_bytes
        header[info.name] = {
            "dtype": DTYPE_CODES[info.dtype],
            "shape": info.shape,
            "data_offsets": [start, end],
        }
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as stream:
        stream.write(len(encoded).to_bytes(8, "little"))
        stream.write(encoded)
        for info, (name, tensor) in zip(infos, tensors, strict=True):
            if (name, tensor.dtype, tuple(tensor.shape)) != (info.name, info.dtype, info.shape):
                raise ConversionError(f"{name}: {tensor.dtype} {tuple(tensor.shape)}, planned was {info}")
            stream.write(as_bytes(tensor.contiguous()))


def _weight_files(folder: Path) -> list[Path]:
    index = folder / INDEX
    if index.is_file():
        return indexed_files(index)
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    raise ConversionError(f"{folder}: neither {WEIGHTS} nor {INDEX}")


def indexed_files(index: Path) -> list[Path]:
    """The files beside a Hugging Face index that it names, each once.

    Raises:
        ConversionError: it is no index, or names a file that is not in its folder.
    """
    try:
        weight_map = json.loads(index.read_bytes())["weight_map"]
        names = sorted(set(weight_map.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConversionError(f"{index}: not an index of weight files: {error}") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not (index.parent / name).is_file():
            raise ConversionError(f"{index}: names {name!r}, which is not a file of {index.parent}")
    return [index.parent / name for name in names]


def _headers(path: Path) -> dict[str, Stored]:
    """What a file holds, by name."""
    try:
        with safe_open(path, framework="pt") as stream:  # it checks every offset against the file's size
            slices = {name: stream.get_slice(name) for name in stream.keys()}  # noqa: SIM118 - not a dict
            return {
                name: Stored(tuple(part.get_shape()), part.get_dtype(), start)
                for (name, part), start in zip(slices.items(), _starts(path, list(slices)), strict=True)
            }
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ConversionError(f"{path}: not a complete safetensors file: {error}") from error


def _starts(path: Path, names: Sequence[str]) -> list[int]:
    """First byte of each tensor, which the safetensors package keeps to itself; see ``_write_file``."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    return [8 + length + int(header[name]["data_offsets"][0]) for name in names]
