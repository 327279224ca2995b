"""A Hugging Face folder becomes a canonical checkpoint, with two fused tensors of one layer in memory."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from megatron_ext.checkpoint.canonical import DTYPES, CanonicalWriter, canonical_shapes
from megatron_ext.checkpoint.manifest import DtypeName, Manifest, writer_versions
from megatron_ext.checkpoint.store import LATEST, CheckpointStore
from megatron_ext.config.sections import ModelConfig
from megatron_ext.convert import assets
from megatron_ext.convert.dtypes import dtype_named
from megatron_ext.convert.families import family_of
from megatron_ext.convert.hf_source import TensorSource, open_weights
from megatron_ext.convert.output import output_directory
from megatron_ext.convert.rules import LAYER, Drop, Family, Rule, Shape, Step, Tied, steps
from megatron_ext.convert.streaming.memory import TwoTensors
from megatron_ext.convert.streaming.read_ahead import read_ahead
from megatron_ext.convert.streaming.rows import fill
from megatron_ext.errors import ConversionError
from megatron_ext.utils.atomic import write_text
from megatron_ext.utils.console import get_logger, progress

MODEL_YAML = "model.yaml"
_SHOWN = 12
# Also for a run that starts from the folder itself, which has no such option.
_MIXED = "; to make them alike, convert with --dtype bf16, fp16 or fp32, and start from the checkpoint that this makes"
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}

logger = get_logger(__name__)


class Import(NamedTuple):
    """Tensors that were checked against their model, and what becomes of them.

    Attributes:
        model: its shape.
        source: the tensors.
        plan: from which to which.
        wanted: what all become; None where they keep their types.
    """

    model: ModelConfig
    source: TensorSource
    plan: list[Step]
    wanted: torch.dtype | None


def import_hf(hf_path: Path, output: Path, overwrite: bool = False, dtype: DtypeName | None = None) -> Path:
    """Make what a run can start from: ``iter_0000000``, ``latest`` and ``model.yaml`` in ``output``.

    Everything is checked before anything is written, and ``output`` appears when it is complete.

    Args:
        hf_path: folder with ``config.json`` and weights, safetensors or ``pytorch_model*.bin``; generation
            settings and tokenizer files are carried along.
        output: new folder.
        overwrite: replace an earlier import.
        dtype: fp32, bf16 or fp16; None keeps each tensor's own.

    Returns:
        The folder of the checkpoint.

    Raises:
        ConversionError: the input is not understood in full, or the output is in the way.
    """
    wanted = dtype_named(dtype)
    model, source, plan = open_hf(hf_path, wanted)
    return _import(
        Import(model, source, plan, wanted),
        output,
        origin=hf_path,
        overwrite=overwrite,
        carried_from=hf_path,
        carried=assets.CARRIED,
    )


def import_model(
    source: TensorSource,
    config: Mapping[str, Any],
    output: Path,
    *,
    origin: Path,
    overwrite: bool,
    dtype: DtypeName | None,
    carried_from: Path,
    carried: Sequence[str],
) -> Path:
    """Make a checkpoint of tensors that have Hugging Face's names, from wherever they come.

    Args:
        source: the tensors.
        config: what ``config.json`` says, or would say, of them.
        output: new folder.
        origin: what ``source`` reads.
        overwrite: replace an earlier import.
        dtype: fp32, bf16 or fp16; None keeps each tensor's own.
        carried_from: folder with the tokenizer's files.
        carried: names of those files that are carried along.

    Returns:
        The folder of the checkpoint.

    Raises:
        ConversionError: as for ``import_hf``.
    """
    family = family_of(config)
    model = family.model_config(config)
    wanted = dtype_named(dtype)
    plan = _checked_plan(family, model, source, wanted)
    return _import(
        Import(model, source, plan, wanted),
        output,
        origin=origin,
        overwrite=overwrite,
        carried_from=carried_from,
        carried=carried,
    )


def _import(
    what: Import, output: Path, *, origin: Path, overwrite: bool, carried_from: Path, carried: Sequence[str]
) -> Path:
    with output_directory(output, overwrite=overwrite, source=origin, is_replaceable=_is_import) as temporary:
        store = CheckpointStore(temporary)
        folder = store.begin(0)
        _write_tensors(folder, what)
        copied = assets.copy_assets(carried_from, folder / assets.FOLDER, carried)
        if not set(copied) & set(assets.TOKENIZER_MODELS):
            logger.warning(f"{carried_from} has no tokenizer: the checkpoint will carry none")
        first = what.plan[0].hf_names[0]
        _manifest(what.wanted or what.source.dtype(first), what.model).write(folder)
        name = store.commit(folder, 0).name
        write_text(temporary / MODEL_YAML, _model_yaml(what.model, origin))
    return output / name


def open_hf(hf_path: Path, wanted: torch.dtype | None = None) -> tuple[ModelConfig, TensorSource, list[Step]]:
    """Read and check everything of a Hugging Face folder but the values.

    Args:
        hf_path: the folder.
        wanted: what all tensors will become; None where they keep their types, which then must agree.

    Returns:
        The model, its tensors, and what becomes of them.

    Raises:
        ConversionError: the folder is not there, or is not understood in full.
    """
    if not hf_path.is_dir():
        raise ConversionError(
            f"{hf_path}: no such folder; download it first: hf download NAME --local-dir DIR"
        )
    config = assets.read_config(hf_path)
    family = family_of(config)
    model = family.model_config(config)  # what is wrong with it is said before what is wrong with the weights
    source = open_weights(hf_path)
    return model, source, _checked_plan(family, model, source, wanted)


def _checked_plan(
    family: Family, model: ModelConfig, source: TensorSource, wanted: torch.dtype | None
) -> list[Step]:
    rules = family.rules(model)
    plan = list(steps(rules, model.num_layers))
    _check_names(source, plan, rules, model.num_layers)
    _check_contents(source, plan, rules, model, wanted)
    return plan


def _is_import(path: Path) -> bool:
    names = [folder.name for folder in CheckpointStore(path).all()]
    return names == ["iter_0000000"] and (path / MODEL_YAML).is_file() and (path / LATEST).is_file()


def optional_names(rules: Sequence[Rule], num_layers: int) -> set[str]:
    """Tensors that a Hugging Face folder may hold and a checkpoint never does."""
    return {
        rule.hf.replace(LAYER, str(layer))
        for rule in rules
        if isinstance(rule, Tied | Drop)
        for layer in range(num_layers)
    }


def _check_names(source: TensorSource, plan: Sequence[Step], rules: Sequence[Rule], num_layers: int) -> None:
    """Every source tensor is consumed, every target produced, exactly once."""
    wanted = Counter(name for step in plan for name in step.hf_names)
    present = source.names()
    problems = [
        _listed("missing", wanted.keys() - present),
        _listed("not expected", present - wanted.keys() - optional_names(rules, num_layers)),
        _listed("used by two rules", {name for name, count in wanted.items() if count > 1}),
    ]
    if any(problems):
        raise ConversionError(
            "the tensors are not those of config.json: " + "; ".join(filter(None, problems))
        )


def _check_contents(
    source: TensorSource,
    plan: Sequence[Step],
    rules: Sequence[Rule],
    model: ModelConfig,
    wanted: torch.dtype | None,
) -> None:
    shapes = canonical_shapes(model)
    problems: list[str] = []
    is_mixed = False
    dtypes: dict[str, torch.dtype] = {}
    for step in plan:
        expected = step.rule.hf_shapes(_shape_of(step, shapes), model)
        for name, shape in zip(step.hf_names, expected, strict=True):
            dtype = dtypes.setdefault(step.rule.canonical, source.dtype(name))
            if source.shape(name) != shape:
                problems.append(f"{name} is {source.shape(name)}, config.json says {shape}")
            if source.dtype(name) != dtype and wanted is None:
                problems.append(f"{name} is {source.dtype(name)}, others of its kind {dtype}")
                is_mixed = True
    problems += [
        f"{rule.hf} differs from {rule.same_as}, although config.json ties them"
        for rule in rules
        if isinstance(rule, Tied) and rule.hf in source.names() and not _is_same(source, rule)
    ]
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise ConversionError("; ".join(problems[:_SHOWN]) + more + (_MIXED if is_mixed else ""))


def _is_same(source: TensorSource, rule: Tied) -> bool:
    return torch.equal(source.read(rule.hf), source.read(rule.same_as))


def _shape_of(step: Step, shapes: dict[str, Shape]) -> Shape:
    shape = shapes[step.rule.canonical]
    return shape if step.layer is None else shape[1:]


def _write_tensors(folder: Path, what: Import) -> None:
    source, plan, model = what.source, what.plan, what.model
    shapes = canonical_shapes(model)
    unfilled = {
        step: torch.empty(
            _shape_of(step, shapes), dtype=what.wanted or source.dtype(step.hf_names[0]), device="meta"
        )
        for step in plan
    }
    memory = TwoTensors(list(unfilled.values()))

    def filled(step: Step) -> torch.Tensor:
        whole = memory.like(unfilled[step])
        fill(whole, source, step, model)
        return whole

    total = sum(_num_bytes(source, name) for step in plan for name in step.hf_names)
    with (
        CanonicalWriter(folder, shapes) as writer,
        progress("importing", total, "bytes") as advance,
    ):
        for step, whole in zip(plan, read_ahead(filled, plan), strict=True):
            writer.add(step.rule.canonical, whole, step.layer)
            advance(sum(_num_bytes(source, name) for name in step.hf_names), step.hf_names[-1])


def _num_bytes(source: TensorSource, name: str) -> int:
    return math.prod(source.shape(name)) * source.dtype(name).itemsize


def _manifest(dtype: torch.dtype, model: ModelConfig) -> Manifest:
    return Manifest(
        model=model,
        iteration=0,
        consumed_samples=0,
        consumed_tokens=0,
        has_optimizer=False,
        params_dtype=_DTYPE_NAMES[dtype],
        versions=writer_versions(),
    )


def _model_yaml(model: ModelConfig, hf_path: Path) -> str:
    section = yaml.safe_dump({"model": model.model_dump(exclude_none=True)}, sort_keys=False)
    name = hf_path.resolve().name
    return f"# Shape of the model imported from {name}; name this file under defaults: in a run.\n{section}"


def _listed(what: str, names: set[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{what}: {', '.join(sorted(names)[:_SHOWN])}{more}" if names else ""
