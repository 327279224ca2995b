"""A synthetic Hugging Face checkpoint of Llama 2 7B's shapes (13.5 GB in bf16) there and back, beside copying it.

Each conversion runs in a fresh process. Its peak memory is the largest RssAnon (heap and stack, interpreter and
libraries included; not the pages of mapped files, which the system takes back at need) that /proc showed, read every
5 ms; the peak of all resident pages, VmHWM, stands beside it. The goal is 2 × the largest tensor + 300 MB. Times
include fsync, of the copy too, and begin with the input out of the page cache; copy and conversion take turns, and
the best of each counts. Memory when the type changes is measured on two layers: the largest tensor is the same.

    python benchmarks/convert.py [--num-layers N] [--repeats N] [--folder D] [--output FILE.json]
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from safetensors import safe_open
from timing import REPEATS, process_megabytes, seconds

from megatron_ext.checkpoint.canonical import DTYPES, canonical_shapes
from megatron_ext.checkpoint.manifest import DtypeName
from megatron_ext.config.sections import ModelConfig
from megatron_ext.convert.assets import CONFIG, write_json
from megatron_ext.convert.from_hf import import_hf
from megatron_ext.convert.llama import LLAMA
from megatron_ext.convert.rules import steps
from megatron_ext.convert.safetensors_files import TensorInfo, write_shards
from megatron_ext.convert.to_hf import export_hf
from megatron_ext.utils.atomic import fsync_directory

LLAMA_2_7B = ModelConfig(
    num_layers=32, hidden_size=4096, ffn_hidden_size=11008, num_attention_heads=32, vocab_size=32000,
    max_position_embeddings=4096,
)  # fmt: skip
SAMPLE_INTERVAL_S = 0.005
EXTRA_MB = 300
ROUNDED: tuple[DtypeName, ...] = ("fp32", "fp16")


@dataclass(frozen=True)
class Conversion:
    """One conversion, beside a copy of its input files.

    Attributes:
        peak_anonymous_mb: largest RssAnon of the process, everything in it included.
        peak_resident_mb: VmHWM, which counts mapped pages of the input files, too.
    """

    seconds: float
    copy_seconds: float
    peak_anonymous_mb: float
    peak_resident_mb: float


def in_turns(turns: Sequence[Conversion]) -> dict[str, object]:
    """The shortest times and the largest sizes."""
    best, copied = min(turn.seconds for turn in turns), min(turn.copy_seconds for turn in turns)
    return {
        "seconds": best,
        "copy_seconds": copied,
        "times_a_copy": best / copied,
        "peak_anonymous_mb": max(turn.peak_anonymous_mb for turn in turns),
        "peak_resident_mb": max(turn.peak_resident_mb for turn in turns),
        "turns": [asdict(turn) for turn in turns],
    }


def make_source(folder: Path, model: ModelConfig) -> list[TensorInfo]:
    """Write the synthetic folder: slices of one pool of random bits, so each tensor has values of its own."""
    shapes = canonical_shapes(model)
    infos = [
        TensorInfo(name, torch.bfloat16, shape)
        for step in steps(LLAMA.rules(model), model.num_layers)
        for name, shape in zip(
            step.hf_names,
            step.rule.hf_shapes(shapes[step.rule.canonical][step.layer is not None :], model),
            strict=True,
        )
    ]
    largest = max(torch.Size(info.shape).numel() for info in infos)
    generator = torch.Generator().manual_seed(0)
    pool = torch.randint(-(2**15), 2**15, (largest + len(infos),), dtype=torch.int16, generator=generator)
    pool &= ~(1 << 14)  # the exponent's first bit: all lie between -2 and 2, which every type can hold

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        for start, info in enumerate(infos):
            end = start + torch.Size(info.shape).numel()
            yield info.name, pool[start:end].view(torch.bfloat16).view(info.shape)

    folder.mkdir(parents=True)
    write_shards(folder, infos, tensors())
    write_json(folder / CONFIG, LLAMA.hf_config(model))
    return infos


def copy(source: Path, target: Path) -> None:
    """The files of a folder, copied to disk."""
    shutil.copytree(source, target)
    for path in files(target):
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    fsync_directory(target)


def forget(folder: Path) -> None:
    """Put the files of a folder on disk and out of the page cache."""
    for path in files(folder):
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def files(folder: Path) -> list[Path]:
    """Every file below a folder."""
    return [path for path in folder.rglob("*") if path.is_file()]


def measured(convert: Callable[[Path, Path], Path], source: Path, target: Path) -> Conversion:
    """Copy ``source``, then convert it to ``target`` in a fresh process, watched from here."""
    forget(source)
    copied = target.with_name("copy")
    copy_seconds = seconds(lambda: copy(source, copied))
    shutil.rmtree(copied)
    shutil.rmtree(target, ignore_errors=True)  # of the turn before
    forget(source)
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_convert, args=(sending, convert, source, target))
    process.start()
    peak = 0.0
    while not receiving.poll(SAMPLE_INTERVAL_S):
        if not process.is_alive():
            raise RuntimeError(f"the conversion of {source} failed")
        peak = max(peak, process_megabytes("RssAnon", str(process.pid)))
    taken, resident = receiving.recv()
    process.join()
    return Conversion(taken, copy_seconds, peak, resident)


def _convert(sending: Connection, convert: Callable[[Path, Path], Path], source: Path, target: Path) -> None:
    taken = seconds(lambda: convert(source, target))
    sending.send((taken, process_megabytes("VmHWM")))
    time.sleep(2 * SAMPLE_INTERVAL_S)


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every tensor's bytes, read by the safetensors package."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as stream:
            for name in stream.keys():  # noqa: SIM118 - not a dict
                values = stream.get_tensor(name).flatten().view(torch.uint8).numpy()
                found[name] = hashlib.sha256(values.data).hexdigest()
    return found


def run(folder: Path, model: ModelConfig, repeats: int) -> dict[str, object]:
    """Make the source, convert it there and back, compare."""
    infos = make_source(folder / "hf", model)
    source, checkpoint, out = folder / "hf", folder / "checkpoint", folder / "out"
    importing = [measured(import_hf, source, checkpoint) for _ in range(repeats)]
    exporting = [measured(export_hf, checkpoint, out) for _ in range(repeats)]
    is_exact = digests(source) == digests(out)
    shutil.rmtree(folder)
    largest_mb = max(info.num_bytes for info in infos) / 1e6
    return {
        "num_layers": model.num_layers,
        "gigabytes": sum(info.num_bytes for info in infos) / 1e9,
        "memory_goal_mb": 2 * largest_mb + EXTRA_MB,
        "is_exact": is_exact,
        "cpus": os.cpu_count(),
        "from_hf": in_turns(importing),
        "to_hf": in_turns(exporting),
    }


def run_rounded(folder: Path, dtype: DtypeName) -> dict[str, object]:
    """Memory of both directions on the way from bf16 to another type, by the larger of which the goal is set."""
    model = LLAMA_2_7B.model_copy(update={"num_layers": 2})
    largest = max(torch.Size(info.shape).numel() for info in make_source(folder / "hf", model))
    importing = measured(partial(import_hf, dtype=dtype), folder / "hf", folder / "rounded")
    kept = import_hf(folder / "hf", folder / "kept")
    exporting = measured(partial(export_hf, dtype=dtype), kept, folder / "out")
    shutil.rmtree(folder)
    return {
        "memory_goal_mb": 2 * largest * DTYPES[dtype].itemsize / 1e6 + EXTRA_MB,
        "from_hf": in_turns([importing]),
        "to_hf": in_turns([exporting]),
    }


def show(result: dict[str, Any], title: str) -> None:
    """Print the table."""
    columns = ("seconds", "copy_seconds", "times_a_copy", "peak_anonymous_mb", "peak_resident_mb")
    table = Table("", *columns, title=title, caption=f"memory goal: {result['memory_goal_mb']:,.0f} MB")
    for direction in ("from_hf", "to_hf"):
        table.add_row(direction, *(f"{result[direction][column]:,.1f}" for column in columns))
    Console().print(table)


def main() -> None:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--num-layers", type=int, default=LLAMA_2_7B.num_layers)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--folder", type=Path, help="where the files go for a while: 3 × their size")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "convert.json")
    arguments = parser.parse_args()
    model = LLAMA_2_7B.model_copy(update={"num_layers": arguments.num_layers})
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        result = run(Path(folder) / "kept", model, arguments.repeats)
        rounded = {dtype: run_rounded(Path(folder) / dtype, dtype) for dtype in ROUNDED}
    show(result, f"{result['gigabytes']:.1f} GB, {model.num_layers} layers, exact: {result['is_exact']}")
    for dtype, figures in rounded.items():
        show(figures, f"bf16 to {dtype}, 2 layers")
    arguments.output.write_text(json.dumps({**result, "rounded": rounded}, indent=2) + "\n", encoding="utf-8")
    if not result["is_exact"]:
        raise SystemExit("the round trip changed values")


if __name__ == "__main__":
    main()
