"""megatron-core's ``torch_dist`` files, one tensor at a time, without megatron-core and without processes.

The tensors are canonical: they know nothing of tensor, pipeline or data parallelism. Layers are stacked on
axis 0; ``linear_qkv`` is grouped by KV head (its queries, its key, its value); ``linear_fc1`` is all of gate,
then all of up.

torch's own writer and reader are not used for the data: the writer keeps the last tensor of each key until
the end, the reader wants a plan for each slice. The format is small: ``.distcp`` files are ``torch.save``
records end to end, ``.metadata`` is the table of which slice of which tensor each record is.
"""

import json
import math
import pickle
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import torch
from torch.distributed.checkpoint.filesystem import CURRENT_DCP_VERSION, FileSystemReader, _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.utils import _create_file_view

from megatron_ext.checkpoint.manifest import DtypeName
from megatron_ext.checkpoint.trust import BACKENDS, verify
from megatron_ext.checkpoint.values import drop_pages, read_values, round_into
from megatron_ext.config.sections import ModelConfig
from megatron_ext.errors import CheckpointError

DTYPES: dict[DtypeName, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
EMBEDDING = "embedding.word_embeddings.weight"
OUTPUT_LAYER = "output_layer.weight"
VOCABULARY_KEYS = frozenset({EMBEDDING, OUTPUT_LAYER})
"""Tensors whose rows may be padded beyond ``vocab_size``, to divide among tensor-parallel ranks."""
OPTIMIZER_PREFIX = "optimizer."
_DATA_FILE = "__0_0.distcp"


def canonical_shapes(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Key to shape of every tensor of a model, without vocabulary padding."""
    layers, hidden, ffn = model.num_layers, model.hidden_size, model.ffn_hidden_size
    queries = model.num_attention_heads * model.head_size
    keys_and_values = 2 * model.query_groups * model.head_size
    shapes: dict[str, tuple[int, ...]] = {
        EMBEDDING: (model.vocab_size, hidden),
        "decoder.layers.self_attention.linear_qkv.layer_norm_weight": (layers, hidden),
        "decoder.layers.self_attention.linear_qkv.weight": (layers, queries + keys_and_values, hidden),
        "decoder.layers.self_attention.linear_proj.weight": (layers, hidden, queries),
        "decoder.layers.mlp.linear_fc1.layer_norm_weight": (layers, hidden),
        "decoder.layers.mlp.linear_fc1.weight": (layers, 2 * ffn, hidden),
        "decoder.layers.mlp.linear_fc2.weight": (layers, hidden, ffn),
        "decoder.final_layernorm.weight": (hidden,),
    }
    if model.untie_embeddings_and_output_weights:
        shapes[OUTPUT_LAYER] = (model.vocab_size, hidden)
    if model.add_qkv_bias:
        shapes["decoder.layers.self_attention.linear_qkv.bias"] = (layers, queries + keys_and_values)
    if model.qk_layernorm:
        for norm in ("q_layernorm", "k_layernorm"):
            shapes[f"decoder.layers.self_attention.{norm}.weight"] = (layers, model.head_size)
    return shapes


class CanonicalWriter:
    """Writes a ``torch_dist`` folder; the block's end without an error completes it.

    Args:
        folder: exists and is empty.
        shapes: every tensor that will be there, such as from ``canonical_shapes``.
    """

    def __init__(self, folder: Path, shapes: Mapping[str, Sequence[int]]) -> None:
        self._folder = folder
        self._shapes = {key: torch.Size(shape) for key, shape in shapes.items()}
        self._entries: dict[str, TensorStorageMetadata] = {}
        self._storage: dict[MetadataIndex, _StorageInfo] = {}
        self._stream: IO[bytes] | None = None

    def __enter__(self) -> "CanonicalWriter":
        self._stream = (self._folder / _DATA_FILE).open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()
        if kind is None:
            self._finish()

    def add(self, key: str, tensor: torch.Tensor, layer: int | None = None) -> None:
        """Append one tensor, or one layer of a stacked one.

        Args:
            key: one of ``shapes``.
            tensor: of the key's shape; with ``layer``, of that shape without axis 0.
            layer: position on axis 0.

        Raises:
            CheckpointError: shape, dtype or layer do not fit, or were there before.
        """
        if self._stream is None:
            raise CheckpointError("CanonicalWriter.add outside its with block")
        shape = self._shapes[key]
        chunk = tensor.detach() if layer is None else tensor.detach().unsqueeze(0)
        offsets = torch.Size([layer or 0] + [0] * (len(shape) - 1))
        if chunk.shape[layer is not None :] != shape[layer is not None :] or offsets[0] >= shape[0]:
            raise CheckpointError(
                f"{key}: {tuple(tensor.shape)} at layer {layer} does not fit {tuple(shape)}"
            )
        entry = self._entries.setdefault(
            key, TensorStorageMetadata(TensorProperties(dtype=tensor.dtype), shape, chunks=[])
        )
        index = MetadataIndex(key, offsets, len(entry.chunks))
        if index in self._storage or entry.properties.dtype != tensor.dtype:
            raise CheckpointError(
                f"{key}: layer {layer} comes twice, or its dtype {tensor.dtype} is not the others'"
            )
        entry.chunks.append(ChunkStorageMetadata(offsets, chunk.shape))
        self._storage[index] = self._append(self._stream, chunk)

    @staticmethod
    def _append(stream: IO[bytes], chunk: torch.Tensor) -> _StorageInfo:
        start = stream.tell()
        # torch.save writes all of a view's storage, so the record must own no more than its values.
        chunk = chunk.cpu().contiguous()
        torch.save(chunk if chunk.untyped_storage().nbytes() == chunk.nbytes else chunk.clone(), stream)
        return _StorageInfo(_DATA_FILE, start, stream.tell() - start)

    def _finish(self) -> None:
        missing = sorted(key for key, shape in self._shapes.items() if self._rows_written(key) != shape[0])
        if missing:
            raise CheckpointError(
                f"{self._folder}: these tensors were not written in full: {', '.join(missing)}"
            )
        torch.save({}, self._folder / "common.pt")
        (self._folder / "metadata.json").write_text(json.dumps(BACKENDS), encoding="utf-8")
        metadata = Metadata(
            state_dict_metadata=dict(self._entries),
            storage_data=self._storage,
            storage_meta=StorageMeta(save_id=str(uuid.uuid4())),
            version=CURRENT_DCP_VERSION,
        )
        with (self._folder / ".metadata").open("wb") as stream:
            pickle.dump(metadata, stream)

    def _rows_written(self, key: str) -> int:
        return sum(chunk.sizes[0] for chunk in self._entries[key].chunks) if key in self._entries else 0


class CanonicalReader:
    """Reads tensors, or slices of them, from a ``torch_dist`` folder saved by any layout.

    Args:
        folder: of one checkpoint; it is verified (see ``trust.verify``) before anything is read.

    Raises:
        CheckpointError: the folder is not such a checkpoint, is damaged or unsafe.
    """

    def __init__(self, folder: Path) -> None:
        verify(folder)
        self._folder = folder
        metadata = FileSystemReader(folder).read_metadata()
        self._storage: Mapping[MetadataIndex, _StorageInfo] = metadata.storage_data
        self._tensors = {
            key: entry
            for key, entry in metadata.state_dict_metadata.items()
            if isinstance(entry, TensorStorageMetadata)
        }

    def keys(self) -> list[str]:
        """Names of the model's tensors: no optimizer state, no pickled objects."""
        return [key for key in self._tensors if not key.startswith(OPTIMIZER_PREFIX)]

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of the whole tensor, layers stacked."""
        return tuple(self._entry(key).size)

    def dtype(self, key: str) -> torch.dtype:
        """Element type of a tensor."""
        return self._entry(key).properties.dtype

    def read(self, key: str) -> torch.Tensor:
        """The whole tensor, on the CPU."""
        shape = self.shape(key)
        return self.read_slice(key, [0] * len(shape), shape)

    def read_layer(self, key: str, layer: int) -> torch.Tensor:
        """One layer of a stacked tensor, without the layer axis."""
        shape = self.shape(key)
        return self.read_slice(key, [layer] + [0] * (len(shape) - 1), (1, *shape[1:])).squeeze(0)

    def read_slice(
        self, key: str, offsets: Sequence[int], sizes: Sequence[int], out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """A box of a tensor, put together from the saved pieces that overlap it, on the CPU.

        Args:
            key: one of ``keys``, or of the optimizer's tensors.
            offsets: first index on each axis.
            sizes: extent on each axis.
            out: of these sizes; filled and returned, rounded to its dtype. For what is read once: where whole pieces go
                there, they leave the page cache.

        Raises:
            CheckpointError: part of the box is not in the files.
            OverflowError: a value does not fit the dtype of ``out``.
        """
        entry = self._entry(key)
        result = out
        found = 0
        for chunk in entry.chunks:
            box = _overlap(offsets, sizes, chunk.offsets, chunk.sizes)
            if box is None:
                continue
            start, extent = box
            found += math.prod(extent)
            if result is None and extent == list(sizes):
                return self._record(key, chunk)[_within(start, extent, chunk.offsets)]
            if result is None:
                result = torch.empty(list(sizes), dtype=entry.properties.dtype)
            place = result[_within(start, extent, offsets)]
            if out is not None and extent == list(chunk.sizes) and place.is_contiguous():
                self._record(key, chunk, place)
            else:
                round_into(self._record(key, chunk)[_within(start, extent, chunk.offsets)], place)
        if result is None or found != math.prod(sizes):
            raise CheckpointError(
                f"{self._folder}: {key} is incomplete: {found:,} of {math.prod(sizes):,} values"
            )
        return result

    def _entry(self, key: str) -> TensorStorageMetadata:
        if key not in self._tensors:
            raise CheckpointError(f"{self._folder}: no tensor {key}")
        return self._tensors[key]

    def _record(
        self, key: str, chunk: ChunkStorageMetadata, place: torch.Tensor | None = None
    ) -> torch.Tensor:
        """A saved piece; in ``place``, which is contiguous, if there is one."""
        info = self._storage.get(MetadataIndex(key, chunk.offsets))
        if info is None:
            raise CheckpointError(f"{self._folder}: {key} at {tuple(chunk.offsets)} is in no file")
        path = self._folder / info.relative_path
        with path.open("rb") as stream:
            record: Any = _create_file_view(stream, info.offset, info.length)
            try:
                tensor = torch.load(
                    record, map_location="cpu" if place is None else "meta", weights_only=True
                )
                if not isinstance(tensor, torch.Tensor) or tensor.shape != chunk.sizes:
                    raise ValueError(f"not a tensor of {tuple(chunk.sizes)}")
                if place is None:
                    return tensor
                start = tensor.untyped_storage()._checkpoint_offset
                if start is None or not tensor.is_contiguous():
                    record.seek(0)
                    round_into(torch.load(record, map_location="cpu", weights_only=True), place)
                    return place
                start += info.offset + int(tensor.storage_offset()) * tensor.itemsize
                read_values(stream, start, place, tensor.dtype)
                drop_pages(stream, info.offset, info.length)
            except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
                reason = str(error).partition("\n")[0]
                raise CheckpointError(
                    f"{path}: {key} at byte {info.offset:,} is damaged: {reason}"
                ) from error
        return place


def _overlap(
    offsets: Sequence[int], sizes: Sequence[int], other_offsets: Sequence[int], other_sizes: Sequence[int]
) -> tuple[list[int], list[int]] | None:
    """Offsets and sizes of what two boxes share; None where they do not touch."""
    start = [max(a, b) for a, b in zip(offsets, other_offsets, strict=True)]
    ends = zip(offsets, sizes, other_offsets, other_sizes, strict=True)
    extent = [min(a + n, b + m) - s for (a, n, b, m), s in zip(ends, start, strict=True)]
    return (start, extent) if all(size > 0 for size in extent) else None


def _within(start: Sequence[int], extent: Sequence[int], origin: Sequence[int]) -> tuple[slice, ...]:
    """Index of a box in a tensor whose first element lies at ``origin``."""
    return tuple(slice(a - o, a - o + n) for a, n, o in zip(start, extent, origin, strict=True))
