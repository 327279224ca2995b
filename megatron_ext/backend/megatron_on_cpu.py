"""Lets megatron-core 0.16 train on a CPU, or on tensors without data (``data_free.py``).

megatron-core names CUDA in six places that such a run reaches; each has a function here that redirects it. Nothing
else is patched: what can be chosen by a setting is chosen in ``model/transformer.py``.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from megatron.core.optimizer import clip_grads, distrib_optimizer, optimizer
from megatron.core.tensor_parallel import random as megatron_random

_CPU = torch.device("cpu")
_FACTORIES = ("tensor", "zeros", "ones", "empty")
_installed = False


def patch_megatron_core(device: torch.device = _CPU) -> None:
    """Redirect megatron-core's CUDA calls to ``device``, once per process.

    Raises:
        RuntimeError: this process sees a GPU: the redirection would take it from its other users.
    """
    global _installed  # noqa: PLW0603 - a process is patched once, and modules live as long as it does
    if _installed:
        return
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        raise RuntimeError("CUDA is in use in this process; start a CPU run in a process of its own")
    _redirect_current_device(device)
    _redirect_device_literals(device)
    _silence_synchronisation()
    _keep_random_states_on_cpu()
    _accept_tensor_types()
    _installed = True


def _redirect_current_device(device: torch.device) -> None:
    """Gradient buffers, pipeline receive buffers, sequence-parallel gathers and RoPE ask for the current device."""
    torch.cuda.current_device = lambda: device  # type: ignore[assignment,return-value]


def _redirect_device_literals(device: torch.device) -> None:
    """Schedules, gradient clipping and optimizers create scalars with ``device="cuda"``; tied weights move there.

    Context parallelism pins an index for its way to the device, which needs one.
    """

    def on_device(factory: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        @functools.wraps(factory)
        def create(*args: Any, **kwargs: Any) -> torch.Tensor:
            if str(kwargs.get("device", "")).startswith("cuda"):
                kwargs["device"] = device
            kwargs.pop("pin_memory", None)
            return factory(*args, **kwargs)

        return create

    with torch.device("cpu"):
        # torch lists its factories when the first is called in a device's context. If it listed ours, no context would
        # have an effect on them: transformers, which asks for one, would leave rotary frequencies uninitialised.
        torch.empty(0)
    for name in _FACTORIES:
        setattr(torch, name, on_device(getattr(torch, name)))
    torch.Tensor.cuda = lambda self, *_args, **_kwargs: self.to(device)  # type: ignore[method-assign]


def _silence_synchronisation() -> None:
    """Pipeline communication and checkpoint saving wait for a device that is not there."""
    torch.cuda.synchronize = lambda *_args, **_kwargs: None
    torch.cuda.manual_seed = lambda seed: None  # noqa: ARG005


def _keep_random_states_on_cpu() -> None:
    """The tensor-parallel random states live in the CPU generator."""

    class CpuRngStatesTracker(megatron_random.CudaRNGStatesTracker):  # type: ignore[misc]
        """megatron-core's tracker of named random states, on the CPU generator."""

        def add(self, name: str, seed: int) -> None:
            """Start the named state from ``seed``."""
            self._is_initialized = True
            self.seeds_.add(seed)
            self.states_[name] = torch.Generator().manual_seed(seed).get_state()

        @contextlib.contextmanager
        def fork(self, name: str = "model-parallel-rng") -> Iterator[None]:
            """Draw from the named state inside the block."""
            outside = torch.get_rng_state()
            torch.set_rng_state(self.states_[name])
            try:
                yield
            finally:
                self.states_[name] = torch.get_rng_state()
                torch.set_rng_state(outside)

    megatron_random.CudaRNGStatesTracker = CpuRngStatesTracker
    megatron_random._get_cuda_rng_state = lambda *_args, **_kwargs: torch.get_rng_state()
    megatron_random._set_cuda_rng_state = lambda state, *_args, **_kwargs: torch.set_rng_state(state)


def _accept_tensor_types() -> None:
    """Gradient clipping and two optimizers compare ``tensor.type()`` with names such as ``torch.cuda.FloatTensor``.

    ``Tensor.type`` answers with the CUDA name inside those three functions only.
    """
    plain_type = torch.Tensor.type

    def cuda_type(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        answer = plain_type(self, *args, **kwargs)
        return f"torch.cuda.{answer.rpartition('.')[2]}" if isinstance(answer, str) else answer

    def answering_cuda(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            torch.Tensor.type = cuda_type  # type: ignore[method-assign,assignment]
            try:
                return function(*args, **kwargs)
            finally:
                torch.Tensor.type = plain_type  # type: ignore[method-assign]

        return call

    clip = answering_cuda(clip_grads.clip_grad_by_total_norm_fp32)
    clip_grads.clip_grad_by_total_norm_fp32 = optimizer.clip_grad_by_total_norm_fp32 = clip
    for kind in (optimizer.Float16OptimizerWithFloat16Params, distrib_optimizer.DistributedOptimizer):
        kind.__init__ = answering_cuda(kind.__init__)
