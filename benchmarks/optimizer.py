"""One AdamW update of a flat buffer, in each choice of states, beside torch's fused AdamW on fp32.

On a GPU: milliseconds, and the bandwidth that the bytes read and written come to, beside that of a plain copy. On a
CPU the update runs in plain torch, so the times say little; what is checked there is that every choice runs.

    python benchmarks/optimizer.py [--parameters N] [--output FILE.json]
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from megatron_ext.kernels.adamw import AdamWStep, FlatParameters, Segments, adamw_

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
PARAMETERS = 500_000_000 if ON_GPU else 2_000_000
WARMUP, REPEATS = 3, 10
UPDATE = AdamWStep(lr=1e-4, weight_decay=0.1, beta1=0.9, beta2=0.95, eps=1e-8, step=10)
F32, BF16 = torch.float32, torch.bfloat16
CHOICES: dict[str, tuple[torch.dtype, torch.dtype, torch.dtype | None, torch.dtype]] = {
    "16 bytes (fp32)": (F32, F32, None, F32),
    "18 bytes": (BF16, F32, F32, F32),
    "12 bytes": (BF16, BF16, F32, BF16),
    "10 bytes": (BF16, BF16, torch.int16, BF16),
}


def best_seconds(work: Callable[[], object]) -> float:
    """The best of several runs, each waited for."""
    times = []
    for _ in range(WARMUP + REPEATS):
        start = time.perf_counter()
        work()
        if ON_GPU:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[WARMUP:])


def ours(choice: str, size: int) -> tuple[float, int]:
    """Seconds of an update with clipping, and bytes that it reads and writes."""
    weights, gradients, master, moments = (
        dtype and torch.zeros(size, dtype=dtype, device=DEVICE) for dtype in CHOICES[choice]
    )
    if weights is None or gradients is None or moments is None:
        raise RuntimeError("every choice has weights, gradients and moments")
    flat = FlatParameters(weights.fill_(1), gradients.fill_(0.1), master, moments, torch.zeros_like(moments))
    segments, scale = Segments([(0, size)]), torch.tensor(0.5, device=DEVICE)
    taken = best_seconds(lambda: adamw_(flat, segments, UPDATE, scale))
    kept = sum(
        buffer.nbytes
        for buffer in (flat.weights, master, flat.exp_avg, flat.exp_avg_sq)
        if buffer is not None
    )
    read = (
        kept if master is None or master.dtype != F32 else kept - flat.weights.nbytes
    )  # the master says it all
    return taken, read + kept + gradients.nbytes


def torchs(size: int) -> tuple[float, int]:
    """The same of torch's fused AdamW, whose weights, gradients and moments are fp32; without clipping."""
    weights = torch.nn.Parameter(torch.ones(size, device=DEVICE))
    weights.grad = torch.full_like(weights, 0.1)
    optimizer = torch.optim.AdamW([weights], lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    return best_seconds(optimizer.step), 7 * weights.nbytes


def copied(size: int) -> tuple[float, int]:
    """A plain copy, whose bandwidth is what the device has to give."""
    source = torch.ones(size, device=DEVICE)
    target = torch.empty_like(source)
    return best_seconds(lambda: target.copy_(source)), 2 * source.nbytes


def main() -> None:
    """Measure and print; write JSON where asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--parameters", type=int, default=PARAMETERS)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    size = arguments.parameters
    measured = {"copy": copied(size), "torch fused (fp32)": torchs(size)}
    measured |= {f"ours, {choice}": ours(choice, size) for choice in CHOICES}
    name = torch.cuda.get_device_name() if ON_GPU else "CPU"
    table = Table("update", "ms", "GB/s", title=f"AdamW on {size:,} parameters, {name}", title_justify="left")
    for label, (seconds, amount) in measured.items():
        table.add_row(label, f"{seconds * 1e3:.2f}", f"{amount / seconds / 1e9:,.0f}")
    Console().print(table)
    if arguments.output:
        result = {
            label: {"seconds": seconds, "bytes": amount} for label, (seconds, amount) in measured.items()
        }
        text = json.dumps({"device": name, "parameters": size, "updates": result}, indent=2)
        arguments.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
