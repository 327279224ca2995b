"""A canonical checkpoint, of any layout, becomes a Hugging Face folder, with two tensors of a layer in memory."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from megatron_ext.checkpoint.canonical import DTYPES, VOCABULARY_KEYS, CanonicalReader, canonical_shapes
from megatron_ext.checkpoint.manifest import DtypeName, Manifest
from megatron_ext.checkpoint.store import CheckpointStore
from megatron_ext.convert import assets
from megatron_ext.convert.dtypes import dtype_named
from megatron_ext.convert.families import family_for
from megatron_ext.convert.output import output_directory
from megatron_ext.convert.rules import Family, Shape, Step, steps
from megatron_ext.convert.safetensors_files import MAX_SHARD_BYTES, TensorInfo, write_shards
from megatron_ext.convert.streaming.memory import TwoTensors
from megatron_ext.convert.streaming.read_ahead import read_ahead
from megatron_ext.errors import ConversionError
from megatron_ext.utils.console import get_logger, progress

# transformers 4 writes torch_dtype, 5 writes dtype; each reads its own.
_HF_DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}

logger = get_logger(__name__)


def export_hf(
    checkpoint: Path,
    output: Path,
    dtype: DtypeName | None = None,
    overwrite: bool = False,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> Path:
    """Write ``config.json``, safetensors, and the tokenizer files the checkpoint carries.

    Args:
        checkpoint: a run's checkpoint folder (its latest), or one ``iter_…`` folder.
        output: new folder.
        dtype: fp32, bf16 or fp16; None keeps each tensor's own.
        overwrite: replace an earlier export.
        max_shard_bytes: size above which another safetensors file is begun.

    Returns:
        ``output``.

    Raises:
        CheckpointError: the checkpoint is missing, damaged or unsafe.
        ConversionError: its tensors are not those of its model, or the output is in the way.
    """
    export = HFExport.open(checkpoint, dtype)
    with output_directory(
        output, overwrite=overwrite, source=export.folder, is_replaceable=is_export
    ) as temporary:
        with progress("exporting", sum(info.num_bytes for info in export.infos), "bytes") as advance:
            write_shards(temporary, export.infos, export.tensors(advance), max_shard_bytes)
        carried = export.folder / assets.FOLDER
        copied = assets.copy_assets(carried, temporary)
        assets.write_json(temporary / assets.CONFIG, export.config)
        if assets.GENERATION_CONFIG not in copied:
            assets.write_json(temporary / assets.GENERATION_CONFIG, _generation_config(export.config))
        if not set(copied) & set(assets.TOKENIZER_MODELS):
            logger.warning(f"{carried} has no tokenizer: copy the tokenizer's files into {output} yourself")
    return output


@dataclass(frozen=True)
class HFExport:
    """A checkpoint seen as a Hugging Face model: its configuration, and its tensors on demand.

    Attributes:
        folder: the one checkpoint.
        config: content of ``config.json``.
        infos: names, dtypes and shapes of what ``tensors`` yields, in that order.
    """

    folder: Path
    manifest: Manifest
    config: dict[str, Any]
    infos: tuple[TensorInfo, ...]
    _reader: CanonicalReader
    _plan: tuple[Step, ...]

    @classmethod
    def open(cls, checkpoint: Path, dtype: DtypeName | None = None) -> "HFExport":
        """Read and check everything but the values; see ``export_hf`` for arguments and errors."""
        wanted = dtype_named(dtype)
        folder = CheckpointStore.resolve(checkpoint)
        manifest = Manifest.read(folder)
        carried = folder / assets.FOLDER
        config = assets.read_config(carried) if (carried / assets.CONFIG).is_file() else None
        if config is None:
            logger.info(f"{carried} has no config.json: it is made from the model section of {folder.name}")
        family = family_for(manifest.model, config)
        reader = CanonicalReader(folder)
        _check(reader, manifest)
        plan = tuple(steps(family.rules(manifest.model), manifest.model.num_layers))
        infos = tuple(_infos(reader, plan, manifest, wanted))
        return cls(
            folder, manifest, _config(config or {}, family, manifest, infos[0].dtype), infos, reader, plan
        )

    def tensors(self, advance: Callable[[int, str], None]) -> Iterator[tuple[str, torch.Tensor]]:
        """Names and values, in the order of ``infos``; ``advance`` is told the bytes and name of each.

        One canonical tensor of one layer is in memory, and the next, which is read ahead. Values hold until the next
        are taken: to keep them, clone them.
        """
        dtypes = {info.name: info.dtype for info in self.infos}
        unfilled = {step: self._unfilled(step, dtypes[step.hf_names[0]]) for step in self._plan}
        memory = TwoTensors(list(unfilled.values()))

        def filled(step: Step) -> torch.Tensor:
            whole = memory.like(unfilled[step])
            box = whole if step.layer is None else whole.unsqueeze(0)
            offsets = [step.layer or 0] + [0] * (box.dim() - 1)
            try:
                self._reader.read_slice(step.rule.canonical, offsets, box.shape, out=box)
            except OverflowError as error:
                raise ConversionError(f"{' or '.join(step.hf_names)} {error}") from error
            return whole

        for step, whole in zip(self._plan, read_ahead(filled, self._plan), strict=True):
            for name, part in zip(step.hf_names, step.rule.split(whole, self.manifest.model), strict=True):
                yield name, part
                advance(part.nbytes, name)

    def _unfilled(self, step: Step, dtype: torch.dtype) -> torch.Tensor:
        """The shape of what is stored, without the rows that pad the vocabulary."""
        shape = canonical_shapes(self.manifest.model)[step.rule.canonical]
        return torch.empty(shape if step.layer is None else shape[1:], dtype=dtype, device="meta")


def is_export(path: Path) -> bool:
    """Whether a folder is what ``export_hf`` makes."""
    return (path / assets.CONFIG).is_file() and any(path.glob("model*.safetensors"))


def _check(reader: CanonicalReader, manifest: Manifest) -> None:
    """Every tensor of the file is used, every one of the model is there, and has the model's shape."""
    expected, present = canonical_shapes(manifest.model), set(reader.keys())
    problems = [f"{key} is missing" for key in sorted(expected.keys() - present)]
    problems += [f"{key} is not expected" for key in sorted(present - expected.keys())]
    for key in sorted(expected.keys() & present):
        if not _fits(key, reader.shape(key), expected[key]):
            problems.append(f"{key} is {reader.shape(key)}, the manifest's model says {expected[key]}")
    if problems:
        raise ConversionError("the tensors are not those of the checkpoint's model: " + "; ".join(problems))


def _fits(key: str, shape: Shape, expected: Shape) -> bool:
    if key in VOCABULARY_KEYS:
        return shape[0] >= expected[0] and shape[1:] == expected[1:]
    return shape == expected


def _infos(
    reader: CanonicalReader, plan: Sequence[Step], manifest: Manifest, wanted: torch.dtype | None
) -> Iterator[TensorInfo]:
    shapes = canonical_shapes(manifest.model)
    for step in plan:
        key = step.rule.canonical
        shape = shapes[key] if step.layer is None else shapes[key][1:]
        stored = wanted or reader.dtype(key)
        if stored not in _HF_DTYPES:
            raise ConversionError(f"{key} is {stored}; choose a dtype: {', '.join(DTYPES)}")
        for name, part in zip(step.hf_names, step.rule.hf_shapes(shape, manifest.model), strict=True):
            yield TensorInfo(name, stored, part)


def _config(
    carried: dict[str, Any], family: Family, manifest: Manifest, dtype: torch.dtype
) -> dict[str, Any]:
    """What came with the model, with everything that follows from the model section as it is now."""
    name = _HF_DTYPES[dtype]
    return {**carried, **family.hf_config(manifest.model), "torch_dtype": name, "dtype": name}


def _generation_config(config: dict[str, Any]) -> dict[str, Any]:
    ids: dict[str, Any] = {
        key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id") if key in config
    }
    return {"_from_model_config": True, **ids}
