"""Our fused kernels beside plain torch, torch.compile and liger-kernel, forward and backward, in one run.

    python benchmarks/kernels.py [--output benchmarks/results/kernels.json]

On a GPU: milliseconds at the shapes of Llama 2 7B, sequence 4096, bf16, the bytes that must move over the time that
passes, and the share of what a plain copy reaches on the same device. Before that, and on a CPU only that, in Triton's
interpreter: how far each is from float64 at a tiny shape.
"""

import argparse
import json
import os
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is decorated

import triton
from kernel_cases import LLAMA2_7B, TINY, Case, cases
from rich.console import Console
from rich.table import Table

from megatron_ext.utils.atomic import write_text

LARGEST_ERROR = 1e-5
COPY_BYTES = 2**30


def main() -> None:
    """Check, measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/kernels.json"))
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    lines = [{"name": case.name, "error": errors(case)} for case in cases(TINY, device, torch.float32)]
    record: dict[str, Any] = {"machine": machine(), "versions": versions(), "kernels": lines}
    write_text(arguments.output, json.dumps(record, indent=2) + "\n")
    if device.type == "cuda":
        record["copy_gigabytes_per_second"] = copy_speed(device)
        for line, case in zip(lines, cases(LLAMA2_7B, device, torch.bfloat16), strict=True):
            line.update(speed(case, record["copy_gigabytes_per_second"]))
            # Each time anew: if a later one hangs, this is kept.
            write_text(arguments.output, json.dumps(record, indent=2) + "\n")
    show(lines)
    print(f"wrote {arguments.output}")
    wrong = [line["name"] for line in lines if line["error"]["ours"] > LARGEST_ERROR]
    if wrong:
        raise SystemExit(f"further from float64 than {LARGEST_ERROR}: {', '.join(wrong)}")


def results(work: Callable[..., Any], inputs: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    """What comes out, and the gradients of the inputs for upstream gradients of one."""
    inputs = tuple(one.detach().clone().requires_grad_() for one in inputs)
    outputs = work(*(one * 1 for one in inputs))  # the loss overwrites what it is given
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    gradients = torch.autograd.grad(outputs, inputs, [torch.ones_like(one) for one in outputs])
    return [one.detach().double() for one in (*outputs, *gradients)]


def errors(case: Case) -> dict[str, float]:
    """Largest distance of each from float64, relative to the largest value."""
    right = results(case.plain, tuple(one.double() for one in case.inputs))
    return {
        name: max(
            float((found - exact).abs().max() / exact.abs().max())
            for found, exact in zip(results(work, case.inputs), right, strict=True)
        )
        for name, work in (("ours", case.ours), ("liger", case.liger))
        if work is not None
    }


def speed(case: Case, copy_gigabytes_per_second: float) -> dict[str, Any]:
    """Milliseconds forward and backward of each, and bytes a second of ours."""
    works = {
        "ours": case.ours,
        "plain": case.plain,
        "compiled": torch.compile(case.plain, dynamic=False),
        "liger": case.liger,
    }
    taken = {name: milliseconds(work, case.inputs) for name, work in works.items() if work is not None}
    if case.elements is None:
        return {"milliseconds": taken}
    gigabytes = case.elements * case.inputs[0].element_size() / 1e9
    reached = {name: gigabytes / (took / 1e3) for name, took in taken.items()}
    return {
        "milliseconds": taken,
        "gigabytes_per_second": reached,
        "of_a_copy": {name: value / copy_gigabytes_per_second for name, value in reached.items()},
    }


def milliseconds(work: Callable[..., Any], inputs: tuple[torch.Tensor, ...]) -> float:
    """Median time of a forward and a backward pass, with a cold cache."""
    outputs = work(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    upstream = [torch.ones_like(one) for one in outputs]

    def both() -> None:
        again = work(*inputs)
        torch.autograd.grad(again, inputs, upstream)

    return float(triton.testing.do_bench(both, warmup=50, rep=200, return_mode="median"))


def copy_speed(device: torch.device) -> float:
    """Gigabytes a second, read and written, of a large copy."""
    source = torch.empty(COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    took = triton.testing.do_bench(lambda: target.copy_(source), return_mode="median")
    return 2 * COPY_BYTES / 1e9 / (float(took) / 1e3)


def show(lines: list[dict[str, Any]]) -> None:
    """A line a kernel."""
    names = ("ours", "plain", "compiled", "liger")
    table = Table("", "error", *(f"{name}, ms" for name in names), "GB/s", "of a copy")
    for line in lines:
        taken = line.get("milliseconds", {})
        rate, share = (line.get(key, {}).get("ours") for key in ("gigabytes_per_second", "of_a_copy"))
        table.add_row(
            line["name"],
            f"{line['error']['ours']:.1e}",
            *(f"{taken[name]:.3f}" if name in taken else "" for name in names),
            "" if rate is None else f"{rate:,.0f}",
            "" if share is None else f"{share:.0%}",
        )
    Console(width=130).print(table)


def machine() -> dict[str, str]:
    """What it ran on."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "none: checked, not measured"
    return {"gpu": name, "cpu": platform.machine()}


def versions() -> dict[str, str]:
    """Of the packages that are compared."""
    found = {}
    for name in ("megatron-ext", "torch", "triton", "liger-kernel"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


if __name__ == "__main__":
    main()
