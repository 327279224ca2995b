"""What tensors without data need in the place of kernels: ours are counted, not launched, and attention is flash."""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch

from megatron_ext.kernels.attention import sdpa
from megatron_ext.train.trace.counter import StepCounter
from megatron_ext.train.trace.work import work_of_kernel


@contextmanager
def counting(counter: StepCounter) -> Iterator[None]:
    """Inside, ``counter`` sees what is no operation of torch as well."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(torch.UntypedStorage, "resize_", _counted_resize(counter)))
        stack.enter_context(patch.object(sdpa, "scaled_dot_product_attention", _flash_attention))
        if importlib.util.find_spec("triton") is not None:
            from triton.runtime.jit import JITFunction  # noqa: PLC0415 - optional

            stack.enter_context(patch.object(JITFunction, "__getitem__", _counted_launch(counter)))
        yield


def _counted_resize(counter: StepCounter) -> Callable[[torch.UntypedStorage, int], Any]:
    """Memory that is freed, and taken back, behind a tensor."""
    resize = torch.UntypedStorage.resize_

    def counted(storage: torch.UntypedStorage, size: int) -> Any:
        answer = resize(storage, size)
        counter.note(storage)
        return answer

    return counted


def _counted_launch(counter: StepCounter) -> Callable[[Any, Any], Callable[..., None]]:
    """``kernel[grid]``, whose call counts.

    Raises:
        RuntimeError: by the call, if a tensor lies in the host's memory: a GPU would fail on its address.
    """

    def at(kernel: Any, _grid: Any) -> Callable[..., None]:
        def launch(*args: Any, **options: Any) -> None:
            arguments = dict(zip(kernel.arg_names, args, strict=False)) | options
            tensors = {name: one for name, one in arguments.items() if isinstance(one, torch.Tensor)}
            elsewhere = [name for name, one in tensors.items() if one.device.type != "meta"]
            if elsewhere:
                raise RuntimeError(f"{kernel.__name__}: {', '.join(elsewhere)} in the host's memory")
            for tensor in tensors.values():
                counter.note(tensor.untyped_storage())
            counter.add(work_of_kernel(tensors))

        return launch

    return at


def _flash_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    attn_mask: torch.Tensor | None,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
) -> torch.Tensor:
    """The kernel that torch chooses on a GPU; without data it would choose the one that keeps all scores."""
    del enable_gqa  # the kernel goes by the shapes
    if attn_mask is not None:
        raise RuntimeError("flash attention takes no mask")
    output: torch.Tensor = torch.ops.aten._scaled_dot_product_flash_attention(
        query, key, value, 0.0, is_causal, scale=scale
    )[0]
    return output
