"""Which back end a run gets: what each supports, in one table, and the fastest of those that fit."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from megatron_ext.errors import ConfigError, MissingDependencyError
from megatron_ext.kernels.attention.base import AttentionBackend, AttentionNeeds
from megatron_ext.kernels.attention.flash_attn import FlashAttention
from megatron_ext.kernels.attention.reference import ReferenceAttention
from megatron_ext.kernels.attention.sdpa import CudnnAttention, SdpaFlashAttention
from megatron_ext.utils.console import get_logger

KEY = "kernels.attention_backend"
OLDEST_CUDNN = 91501  # from which on torch trusts it, `check_prefer_cudnn_attention` in sdp_utils.cpp
HALF = frozenset({torch.float16, torch.bfloat16})
ANY = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
Capability = tuple[int, int]

logger = get_logger(__name__)


@dataclass(frozen=True)
class Support:
    """What a back end can serve.

    Attributes:
        build: makes it; raises MissingDependencyError if what it needs is not there.
        head_sizes: largest head size, from each compute capability up to the next one named; 0: none there.
        dtypes: on GPUs.
        cpu: whether it runs on CPUs, there in any dtype and head size.
        head_multiple: head sizes are multiples of this.
        whole_rows_only: whether it knows neither documents, nor more keys than queries, nor windows.
    """

    build: Callable[[], AttentionBackend]
    head_sizes: dict[Capability, int]
    dtypes: frozenset[torch.dtype] = HALF
    cpu: bool = False
    head_multiple: int = 8
    whole_rows_only: bool = False


def _cudnn() -> AttentionBackend:
    version: int | None = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    if version is None or version < OLDEST_CUDNN:
        raise MissingDependencyError(
            "cuDNN 9.15.1", f"attend (here: {version or 'none'})", "pip install -U torch"
        )
    return CudnnAttention()


# Sources: `_validate_head_dims` of flash-attn 4 (Blackwell's 256 is left out: a path of its own), README of flash-attn
# 2 and 3, sdp_utils.cpp of torch.
SUPPORT: dict[str, Support] = {
    "flash4": Support(lambda: FlashAttention("flash4"), {(9, 0): 256, (10, 0): 128, (12, 0): 0}),
    "flash3": Support(lambda: FlashAttention("flash3"), {(9, 0): 256, (10, 0): 0}),
    "flash2": Support(lambda: FlashAttention("flash2"), {(8, 0): 256}),
    "cudnn": Support(_cudnn, {(8, 0): 128}, whole_rows_only=True),
    "sdpa_flash": Support(SdpaFlashAttention, {(8, 0): 256}, cpu=True),
    "torch": Support(ReferenceAttention, {(0, 0): 1 << 30}, ANY, cpu=True, head_multiple=1),
}

# flash-attn 2 and torch's flash kernel are one; cuDNN's knows Hopper's instructions: torch prefers it from there on.
FASTEST_FIRST = ("flash4", "flash3", "cudnn", "flash2", "sdpa_flash", "torch")
FASTEST_FIRST_BEFORE_HOPPER = ("flash2", "sdpa_flash", "cudnn", "flash4", "flash3", "torch")
HOPPER = (9, 0)


@functools.cache  # a run has one answer and one announcement, however many model chunks ask
def choose_attention(name: str, needs: AttentionNeeds) -> AttentionBackend:
    """The back end asked for, or with ``auto`` the fastest that can serve; says once which and why.

    Raises:
        ConfigError: the one asked for cannot serve.
    """
    if name != "auto":
        backend, reason = _try(name, needs)
        if backend is None:
            others = [other for other in _by_speed(needs) if _try(other, needs)[0] is not None]
            raise ConfigError(f"{KEY}={name}: {reason}; what can serve here: {', '.join(['auto', *others])}")
        logger.info("attention: %s, as %s asks", name, KEY)
        return backend
    passed_over: dict[str, list[str]] = {}
    for candidate in _by_speed(needs):
        backend, reason = _try(candidate, needs)
        if backend is not None:
            logger.info("attention: %s%s", candidate, _explained(passed_over))
            return backend
        passed_over.setdefault(reason, []).append(candidate)
    raise ConfigError(f"{KEY}=auto: nothing can serve{_explained(passed_over)}")


def _explained(passed_over: dict[str, list[str]]) -> str:
    reasons = [f"{', '.join(names)}: {reason}" for reason, names in passed_over.items()]
    return f", the fastest that fits here ({'; '.join(reasons)})" if reasons else ", the fastest"


def _by_speed(needs: AttentionNeeds) -> tuple[str, ...]:
    before_hopper = needs.capability is not None and needs.capability < HOPPER
    return FASTEST_FIRST_BEFORE_HOPPER if before_hopper else FASTEST_FIRST


def _try(name: str, needs: AttentionNeeds) -> tuple[AttentionBackend | None, str]:
    """The back end, or why not; imports a package only where the device could use it."""
    support = SUPPORT[name]
    reason = next(_mismatches(support, needs), None)
    if reason is not None:
        return None, reason
    try:
        return support.build(), ""
    except MissingDependencyError as error:
        return None, str(error)


def _mismatches(support: Support, needs: AttentionNeeds) -> Iterator[str]:
    if needs.capability is None:
        if not support.cpu:
            yield "needs an NVIDIA GPU"
    else:
        yield from _gpu_mismatches(support, needs, needs.capability)
    if support.whole_rows_only:
        if needs.documents:
            yield "does not attend inside documents (data.reset_attention_mask)"
        if needs.longer_keys:
            yield "does not attend from a part of a row (parallel.context_parallel_size)"
        if needs.window:
            yield "has no sliding window"


def _gpu_mismatches(support: Support, needs: AttentionNeeds, capability: Capability) -> Iterator[str]:
    largest = max((entry for entry in support.head_sizes.items() if entry[0] <= capability), default=(0, 0))[
        1
    ]
    if largest == 0:
        known = [f"{major}.{minor}" for (major, minor), size in support.head_sizes.items() if size]
        here = ".".join(map(str, capability))
        yield f"has no kernel for compute capability {here}, but from {', '.join(known)} on"
    elif needs.head_size > largest or needs.head_size % support.head_multiple:
        yield f"takes head sizes up to {largest} in steps of {support.head_multiple}, not {needs.head_size}"
    if needs.dtype not in support.dtypes:
        names = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in support.dtypes))
        yield f"takes {names}, not {str(needs.dtype).removeprefix('torch.')}"
