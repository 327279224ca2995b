"""``megatron-ext inspect-checkpoint``: what a checkpoint or a Hugging Face folder holds, and how two differ."""

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from megatron_ext.errors import ConversionError

if TYPE_CHECKING:
    from megatron_ext.convert.contents import Contents

WIDTH = 120  # of tables where there is no terminal
DIFFERENT = 1

EPILOG = """\
examples:
  python tools/inspect_checkpoint.py runs/my_run/checkpoints
  python tools/inspect_checkpoint.py Llama-2-7b-hf --norms
  python tools/inspect_checkpoint.py --diff checkpoints/llama2_7b Llama-2-7b-hf

A folder is a run's checkpoints (its latest), one iter_… folder of them, or a Hugging Face folder.
Values are read by --norms and --diff only, one tensor at a time.

Exit code of --diff: 0 if all tensors are equal bit for bit, 1 if some differ, 2 for an error. Folders of
different kinds are compared as canonical tensors; rows that pad the vocabulary, optimizer state and
configuration are not compared.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options and the help."""
    parser.description = "Show the tensors and the configuration of a checkpoint, or compare two."
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path, nargs="?", metavar="FOLDER", help="checkpoint to describe")
    parser.add_argument(
        "--norms", action="store_true", help="read every tensor; one row a layer, with its Euclidean norm"
    )
    parser.add_argument("--diff", type=Path, nargs=2, metavar=("A", "B"), help="compare two folders instead")


def run(arguments: argparse.Namespace) -> int:
    """Describe one folder, or compare two."""
    if (arguments.folder is None) == (arguments.diff is None):
        raise ConversionError("name one FOLDER to describe, or two to compare with --diff A B")
    if arguments.diff is not None and arguments.norms:
        raise ConversionError("--norms describes one FOLDER; leave it out with --diff")
    # Here, because it imports torch: --help does not wait for it.
    from megatron_ext.convert.contents import Contents  # noqa: PLC0415

    console = Console(
        width=None if sys.stdout.isatty() else WIDTH, markup=False, highlight=False, emoji=False
    )
    if arguments.diff is not None:
        return _diff(console, *(Contents.open(path) for path in arguments.diff))
    contents = Contents.open(arguments.folder)
    tensors = _tensors(contents, with_norms=arguments.norms)  # first: a damaged checkpoint is a message only
    console.print(_facts(contents))
    console.print(tensors)
    return 0


def _facts(contents: "Contents") -> Table:
    table = Table(title=str(contents.folder), title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _rows(contents):
        table.add_row(name, value)
    return table


def _rows(contents: "Contents") -> Iterator[tuple[str, str]]:
    manifest, tensors = contents.manifest, contents.tensors
    shapes = {key: contents.shape(key) for key in tensors.keys()}  # noqa: SIM118 - not a dict
    sizes = {key: math.prod(shape) for key, shape in shapes.items()}
    total_bytes = sum(size * tensors.dtype(key).itemsize for key, size in sizes.items())
    yield "kind", "Hugging Face folder" if manifest is None else "checkpoint"
    yield "parameters", f"{sum(sizes.values()):,} in {len(sizes):,} tensors, {total_bytes:,} bytes"
    if manifest is None:
        yield from ((name, json.dumps(value)) for name, value in sorted(contents.config.items()))
        return
    yield "iteration", f"{manifest.iteration:,} ({manifest.skipped_iterations:,} of them skipped)"
    yield "consumed", f"{manifest.consumed_samples:,} samples, {manifest.consumed_tokens:,} tokens"
    kind = "distributed" if manifest.distributed_optimizer else "plain"
    yield "optimizer state", kind if manifest.has_optimizer else "none"
    yield "weights", manifest.params_dtype
    yield from (
        (f"model.{key}", f"{value}") for key, value in manifest.model.model_dump(exclude_none=True).items()
    )
    if manifest.tokenizer is not None:
        yield "tokenizer", manifest.tokenizer.model or manifest.tokenizer.type
    yield "imported from", str(contents.config.get("model_type", "nothing: no config.json is carried along"))
    yield "written by", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())


def _tensors(contents: "Contents", *, with_norms: bool) -> Table:
    from megatron_ext.convert.contents import norm, pieces  # noqa: PLC0415 - imports torch

    columns = ("tensor", "shape", "dtype", "bytes", *(("norm",) if with_norms else ()))
    title = "tensors" if contents.manifest is None else "tensors, without rows that pad the vocabulary"
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right" if column in ("bytes", "norm") else "left", overflow="fold")
    for key in contents.tensors.keys():  # noqa: SIM118 - not a dict
        dtype, shape = contents.tensors.dtype(key), contents.shape(key)
        about = (str(dtype).removeprefix("torch."), dtype.itemsize)
        if not with_norms:
            table.add_row(key, *_described(shape, *about))
            continue
        for name, piece in pieces(contents.tensors, key, shape):
            table.add_row(name, *_described(tuple(piece.shape), *about), f"{norm(piece):.6g}")
    return table


def _described(shape: tuple[int, ...], dtype: str, item_bytes: int) -> tuple[str, str, str]:
    return " × ".join(f"{size}" for size in shape), dtype, f"{math.prod(shape) * item_bytes:,}"


def _diff(console: Console, first: "Contents", second: "Contents") -> int:
    from megatron_ext.convert.contents import differences  # noqa: PLC0415 - imports torch

    found = list(differences(first, second))
    different = [difference for difference in found if difference is not None]
    identical = len(found) - len(different)
    if different:
        table = Table(title=f"{first.folder} and {second.folder}", title_justify="left")
        for column in ("tensor", "differs in", "largest difference"):
            table.add_column(column, overflow="fold")
        for difference in different:
            largest = "" if difference.largest is None else f"{difference.largest:.6g}"
            table.add_row(difference.key, difference.what, largest)
        console.print(table)
    print(f"{identical:,} of {len(found):,} tensors are identical")
    return DIFFERENT if different else 0
