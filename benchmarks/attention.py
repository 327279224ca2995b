"""Every attention back end that can run here, checked against the written-out one and timed.

    python benchmarks/attention.py [--output benchmarks/results/attention.json]

On a GPU one row of 4096 tokens with the heads of Llama 2 7B and of Llama 3 8B in bf16, whole and cut into documents; on
a CPU small shapes in fp32 and one thread. A time is the best of many. FLOPs are those of causal attention, 2 · heads ·
head_size · Σ length² forward and two and a half times as many backward. The last column is what the host needs to issue
a call, forward and backward, measured where there is nothing to compute: 16 tokens.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.benchmark import Timer

from megatron_ext.backend.device import select_backend
from megatron_ext.errors import ConfigError
from megatron_ext.kernels.attention.base import AttentionBackend, AttentionNeeds
from megatron_ext.kernels.attention.choice import FASTEST_FIRST, choose_attention
from megatron_ext.kernels.attention.reference import ReferenceAttention
from megatron_ext.utils.atomic import write_text

TOLERANCE = {torch.bfloat16: 2e-2, torch.float32: 1e-4}  # of the L2 norm; bf16 keeps 8 bits of each value
BACKWARD_FLOPS = 2.5
MEASURED_SECONDS = 0.5
HOST_TOKENS = 16
WIDTH = 120


@dataclass(frozen=True)
class Case:
    """One row, whole or in documents.

    Attributes:
        name: as in the table.
        lengths: tokens of each document.
        heads: of the queries.
        kv_heads: of keys and values.
        head_size: of all.
        dtype: of all.
    """

    name: str
    lengths: tuple[int, ...]
    heads: int
    kv_heads: int
    head_size: int
    dtype: torch.dtype

    @property
    def forward_flops(self) -> float:
        """Two products, each over half a square."""
        return 2.0 * self.heads * self.head_size * sum(length**2 for length in self.lengths)

    def inputs(self, device: torch.device, tokens: int | None = None) -> list[Tensor]:
        """Random queries, keys and values, [1, tokens, heads, head_size], that want gradients."""
        generator = torch.Generator(device).manual_seed(0)
        return [
            torch.randn(
                (1, tokens or sum(self.lengths), heads, self.head_size),
                generator=generator,
                device=device,
                dtype=self.dtype,
                requires_grad=True,
            )
            for heads in (self.heads, self.kv_heads, self.kv_heads)
        ]


@dataclass(frozen=True)
class Figure:
    """What was measured; ``refused`` instead, where a back end cannot serve the case."""

    case: str
    backend: str
    refused: str | None = None
    forward_ms: float | None = None
    backward_ms: float | None = None
    forward_tflops: float | None = None
    backward_tflops: float | None = None
    error: float | None = None
    host_us: float | None = None


GPU_CASES = [
    Case("Llama 2 7B, one row", (4096,), 32, 32, 128, torch.bfloat16),
    Case("Llama 3 8B, one row", (4096,), 32, 8, 128, torch.bfloat16),
    Case("Llama 2 7B, documents", (1, 2047, 900, 600, 400, 148), 32, 32, 128, torch.bfloat16),
]
CPU_CASES = [
    Case("one row", (256,), 4, 4, 64, torch.float32),
    Case("one row, grouped", (256,), 4, 1, 64, torch.float32),
    Case("documents", (1, 127, 100, 28), 4, 4, 64, torch.float32),
]


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/attention.json"))
    arguments = parser.parse_args()
    backend = select_backend("auto", 0, 1)
    on_gpu = backend.fused_kernels
    figures, wrong = [], []
    for case in GPU_CASES if on_gpu else CPU_CASES:
        for name in FASTEST_FIRST:
            figure = measure(name, case, backend.device)
            figures.append(figure)
            write(arguments.output, backend.device_name(), figures)
            if figure.error is not None and not figure.error < TOLERANCE[case.dtype]:
                wrong.append(f"{name} on {case.name}")
    Console(width=WIDTH).print(table(figures))
    print(f"wrote {arguments.output}")
    if wrong:
        raise SystemExit(f"further from the written-out attention than rounding explains: {', '.join(wrong)}")


def write(output: Path, device: str, figures: list[Figure]) -> None:
    """What is known so far: if a later kernel hangs, this is kept."""
    known = [asdict(figure) for figure in figures]
    record = {"device": device, "torch": torch.__version__, "figures": known}
    write_text(output, json.dumps(record, indent=2) + "\n")


def measure(name: str, case: Case, device: torch.device) -> Figure:
    """How far it is from the written-out attention, and how fast."""
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    needs = AttentionNeeds(capability, case.dtype, case.head_size, documents=len(case.lengths) > 1)
    try:
        backend = choose_attention(name, needs)
    except ConfigError as error:
        return Figure(case.name, name, refused=str(error))
    inputs = case.inputs(device)
    deviation = distance(backend, case, inputs)
    starts = boundaries(case.lengths, device)
    forward = seconds(lambda: attend(backend, inputs, starts, case.lengths))
    output = attend(backend, inputs, starts, case.lengths)
    backward = seconds(lambda: gradients(output, inputs, keep=True))
    few, whole = case.inputs(device, HOST_TOKENS), (HOST_TOKENS,)
    small = boundaries(whole, device)
    issue = seconds(lambda: gradients(attend(backend, few, small, whole), few))
    return Figure(
        case=case.name,
        backend=name,
        forward_ms=1e3 * forward,
        backward_ms=1e3 * backward,
        forward_tflops=case.forward_flops / forward / 1e12,
        backward_tflops=BACKWARD_FLOPS * case.forward_flops / backward / 1e12,
        error=deviation,
        host_us=1e6 * issue,
    )


def distance(backend: AttentionBackend, case: Case, inputs: list[Tensor]) -> float:
    """The largest relative L2 distance, of the output and of each gradient, from the written-out attention in fp32."""
    exact = [tensor.detach().float().requires_grad_() for tensor in inputs]
    starts = boundaries(case.lengths, inputs[0].device)
    expected = attend(ReferenceAttention(), exact, starts, case.lengths)
    output = attend(backend, inputs, starts, case.lengths)
    wanted = [expected, *gradients(expected, exact)]
    found = [output, *gradients(output, inputs)]
    pairs = [(mine.detach().float(), other.detach()) for mine, other in zip(found, wanted, strict=True)]
    return max(float((mine - other).norm() / other.norm()) for mine, other in pairs)


def attend(
    backend: AttentionBackend, inputs: list[Tensor], starts: Tensor, lengths: tuple[int, ...]
) -> Tensor:
    """By rows if there is one document, else inside documents."""
    query, key, value = inputs
    if len(lengths) == 1:
        return backend.causal(query, key, value)
    longest = max(lengths)
    output = backend.varlen(query[0], key[0], value[0], starts, starts, longest, longest)
    return output.view(query.shape)


def gradients(output: Tensor, inputs: list[Tensor], *, keep: bool = False) -> tuple[Tensor, ...]:
    """Under an upstream gradient that is the output itself; ``keep``: another call will follow."""
    return torch.autograd.grad(output, inputs, output.detach(), retain_graph=keep)


def boundaries(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """cu_seqlens."""
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)


def seconds(work: Callable[[], object]) -> float:
    """Of the fastest call, the device's work included."""
    timer = Timer("work()", globals={"work": work})
    return float(min(timer.blocked_autorange(min_run_time=MEASURED_SECONDS).times))


def table(figures: list[Figure]) -> Table:
    """A line a figure that is one."""
    lines = Table(
        "", "back end", "forward ms", "backward ms", "TFLOP/s", "TFLOP/s back", "distance", "host µs"
    )
    for figure in figures:
        if figure.refused is None:
            values = asdict(figure)
            keys = ("forward_ms", "backward_ms", "forward_tflops", "backward_tflops", "error", "host_us")
            lines.add_row(figure.case, figure.backend, *(f"{values[key]:.3g}" for key in keys))
    return lines


if __name__ == "__main__":
    main()
