"""Where a step's time goes, by kind of work, from what torch.profiler recorded.

On a GPU its kernels count, by their names; communication counts where nothing else runs beside it. On a CPU operators
count, by the time spent in themselves. What is left of the step's wall-clock time is the remainder: the device waits
for the host, or the host is between operators.
"""

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import profile, record_function, schedule, supported_activities

OPTIMIZER = "optimizer step"
COMMUNICATION = "exposed communication"
ELSE = "elementwise"
REMAINDER = "remainder"
# First match wins. Names of cuBLAS, CUTLASS, flash-attn, cuDNN, Triton, NCCL and aten; torch.compile calls a kernel of
# pointwise operations and reductions by all that it touches, such as the output of an attention.
PARTS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (part, re.compile(pattern, re.IGNORECASE))
    for part, pattern in (
        (ELSE, r"^triton_(poi|red|per)_"),
        (COMMUNICATION, r"nccl|gloo|c10d|all_?reduce|all_?gather|reduce_?scatter"),
        ("attention", r"flash|fmha|attention|sdpa|\bmha"),
        (
            "GEMM",
            r"gemm|^triton_tem_|cutlass|cublas|nvjet|xmma|aten::(matmul|linear|mm|addmm|bmm|baddbmm|_addmm)|mkldnn_linear",
        ),
        (OPTIMIZER, r"adam|multi_tensor"),
    )
)


@dataclass(frozen=True)
class Event:
    """One kernel, or one operator without those it calls.

    Attributes:
        name: as the profiler has it.
        start: microseconds.
        end: microseconds; of a kernel.
        own: microseconds spent in it alone.
    """

    name: str
    start: float
    end: float
    own: float


def part_of(name: str) -> str:
    """The kind of work a kernel or operator does, by its name."""
    return next((part for part, pattern in PARTS if pattern.search(name)), ELSE)


def seconds_by_part(events: Iterable[Event], updates: list[tuple[float, float]]) -> dict[str, float]:
    """Sum up the time of each part, the longest first.

    Args:
        events: of one device.
        updates: (start, end) of the optimizer's steps: all but communication inside counts as theirs.
    """
    seconds: dict[str, float] = {}
    busy = []
    communication = []
    for event in events:
        part = part_of(event.name)
        if part == COMMUNICATION:
            communication.append(event)
            continue
        busy.append((event.start, event.end))
        if any(start <= event.start < end for start, end in updates):
            part = OPTIMIZER
        seconds[part] = seconds.get(part, 0.0) + event.own / 1e6
    exposed = _exposed(communication, busy)
    if exposed:
        seconds[COMMUNICATION] = exposed / 1e6
    return dict(sorted(seconds.items(), key=lambda item: -item[1]))


def profile_parts(work: Callable[[], object], synchronize: Callable[[], None]) -> dict[str, float]:
    """Seconds of each part of the second of two calls of ``work``; updates lie in :func:`update_mark`.

    The remainder is last, and the sum is the wall-clock time of that call: longer than without a profiler, the more so
    on a CPU with small operators. Where kernels of two streams overlap, both count, and the remainder is less by that.
    """
    activities = supported_activities()  # type: ignore[no-untyped-call]
    # The first step pays for what the profiler sets up.
    plan = schedule(wait=0, warmup=1, active=1)
    with profile(activities=activities, schedule=plan, acc_events=True) as recorded:
        for _ in range(2):
            synchronize()
            start = time.perf_counter()
            work()
            synchronize()
            wall = time.perf_counter() - start
            recorded.step()
    events: Any = recorded.events()
    kernels = [one for one in events if one.device_type != DeviceType.CPU]
    device = kernels or list(events)
    marks = [one for one in device if one.name == OPTIMIZER]
    updates = [(one.time_range.start, one.time_range.end) for one in marks]
    counted = [_event(one, bool(kernels)) for one in device if not _is_mark(one)]
    parts = seconds_by_part(counted, updates)
    return {**parts, REMAINDER: wall - sum(parts.values())}


def update_mark() -> record_function:
    """Context in which everything counts as the optimizer's."""
    return record_function(OPTIMIZER)


def _is_mark(recorded: Any) -> bool:
    """Whether it is a span that somebody named, no work of its own."""
    named = recorded.name == OPTIMIZER or recorded.name.startswith("ProfilerStep")
    return named or bool(getattr(recorded, "is_user_annotation", False))


def _event(recorded: Any, is_kernel: bool) -> Event:
    span = recorded.time_range
    own = span.end - span.start if is_kernel else recorded.self_cpu_time_total
    return Event(recorded.name, span.start, span.end if is_kernel else span.start + own, own)


def _exposed(communication: list[Event], busy: list[tuple[float, float]]) -> float:
    """Microseconds of communication beside which no other kernel runs."""
    alone = _length([(one.start, one.end) for one in communication] + busy)
    return alone - _length(busy)


def _length(spans: list[tuple[float, float]]) -> float:
    """Length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
