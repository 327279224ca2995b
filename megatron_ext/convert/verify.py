"""Whether a Hugging Face folder and a checkpoint hold the same weights: both are read again and hashed."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from megatron_ext.checkpoint.values import as_bytes
from megatron_ext.convert import assets
from megatron_ext.convert.dtypes import converted
from megatron_ext.convert.families import family_of
from megatron_ext.convert.from_hf import optional_names
from megatron_ext.convert.hf_source import TensorSource, open_weights
from megatron_ext.convert.rules import Tied
from megatron_ext.convert.to_hf import HFExport
from megatron_ext.errors import ConversionError
from megatron_ext.utils.console import progress

Made = Literal["checkpoint", "hf"]
_SHOWN = 12


@dataclass(frozen=True)
class Compared:
    """What was found equal.

    Attributes:
        tensors: their number, under Hugging Face names.
        num_bytes: of the values that were hashed, of one side.
        rounded: tensors whose dtype differs between the two, compared after the same rounding.
        left_out: tensors of the Hugging Face folder that no model needs, and so no checkpoint holds.
    """

    tensors: int
    num_bytes: int
    rounded: int
    left_out: tuple[str, ...]


def compare_tensors(hf_path: Path, checkpoint: Path, made: Made) -> Compared:
    """Compare every tensor by SHA-256 of its bytes, one at a time.

    A tensor that the conversion rounded is compared with its source rounded in the same way.

    Args:
        hf_path: folder with ``config.json`` and weights.
        checkpoint: a run's checkpoint folder (its latest), or one ``iter_…`` folder.
        made: which of the two was made of the other, and so has the dtype that counts.

    Raises:
        ConversionError: tensors are missing, too many or different; names them.
        CheckpointError: the checkpoint is missing, damaged or unsafe.
    """
    return compare_model(open_weights(hf_path), assets.read_config(hf_path), hf_path, checkpoint, made)


def compare_model(
    source: TensorSource, config: Mapping[str, Any], origin: Path, checkpoint: Path, made: Made
) -> Compared:
    """``compare_tensors`` for tensors that have Hugging Face's names, from wherever they come.

    Args:
        source: the tensors.
        config: what ``config.json`` says, or would say, of them.
        origin: what ``source`` reads.
        checkpoint: a run's checkpoint folder (its latest), or one ``iter_…`` folder.
        made: as for ``compare_tensors``.
    """
    export = HFExport.open(checkpoint)
    model = export.manifest.model
    rules = family_of(config).rules(model)
    expected = {info.name for info in export.infos}
    optional = optional_names(rules, model.num_layers) & source.names()
    problems = [f"{name} is only in {export.folder}" for name in sorted(expected - source.names())]
    problems += [f"{name} is only in {origin}" for name in sorted(source.names() - expected - optional)]
    if problems:
        raise ConversionError(_listed(problems))
    tied = {rule.same_as: rule.hf for rule in rules if isinstance(rule, Tied) and rule.hf in optional}
    num_bytes = rounded = 0
    with progress("verifying", sum(info.num_bytes for info in export.infos), "bytes") as advance:
        for name, ours in export.tensors(advance):
            for other in filter(None, (name, tied.get(name))):
                theirs = source.read(other)
                dtype = ours.dtype if made == "checkpoint" else theirs.dtype
                rounded += ours.dtype != theirs.dtype
                num_bytes += theirs.numel() * dtype.itemsize
                if _digest(converted(name, ours, dtype)) != _digest(converted(other, theirs, dtype)):
                    problems.append(f"{other} differs between {origin} and {export.folder}")
    if problems:
        raise ConversionError(_listed(problems))
    left_out = tuple(sorted(optional - set(tied.values())))
    return Compared(len(expected) + len(tied), num_bytes, rounded, left_out)


def _digest(tensor: torch.Tensor) -> bytes:
    """Of shape and bytes: unlike ==, it tells -0 from 0, and one NaN from another."""
    digest = hashlib.sha256(repr(tuple(tensor.shape)).encode())
    digest.update(as_bytes(tensor.contiguous()))
    return digest.digest()


def _listed(problems: list[str]) -> str:
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return "the conversion is not right, do not use it: " + "; ".join(problems[:_SHOWN]) + more
