"""The flash-attn packages: release 4 (CuTe DSL), 3 (Hopper) and 2. One calling convention, three modules."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from megatron_ext.errors import MissingDependencyError


@dataclass(frozen=True)
class FlashAttnRelease:
    """Where a release is found, and in what it differs.

    Attributes:
        modules: that hold ``flash_attn_func`` and ``flash_attn_varlen_func``, the first that is there counts.
        unlimited: how it writes a window without a limit.
        install: the command that installs it.
    """

    modules: tuple[str, ...]
    unlimited: int | None
    install: str


RELEASES = {
    "flash4": FlashAttnRelease(("flash_attn.cute",), None, "pip install --pre flash-attn-4"),
    "flash3": FlashAttnRelease(
        ("flash_attn_interface", "flash_attn_3.flash_attn_interface"),
        -1,
        "python setup.py install, in the folder hopper of the flash-attention sources",
    ),
    "flash2": FlashAttnRelease(("flash_attn",), -1, "pip install flash-attn --no-build-isolation"),
}


class FlashAttention:
    """One release. fp16 and bf16 on NVIDIA GPUs; grouped KV heads, lower-right masks and windows are its own."""

    def __init__(self, name: str) -> None:
        """Import it.

        Raises:
            MissingDependencyError: it is not installed, or does not import.
        """
        release = RELEASES[name]
        self.name = name
        self._unlimited = release.unlimited
        self._rows, self._documents = _functions(release)

    def causal(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float | None = None,
        window: int | None = None,
    ) -> torch.Tensor:
        """See :meth:`AttentionBackend.causal`."""
        return _output(
            self._rows(query, key, value, softmax_scale=scale, causal=True, window_size=self._window(window))
        )

    def varlen(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        cu_seqlens_q: torch.Tensor,
        cu_seqlens_k: torch.Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        scale: float | None = None,
        window: int | None = None,
    ) -> torch.Tensor:
        """See :meth:`AttentionBackend.varlen`."""
        return _output(
            self._documents(
                query,
                key,
                value,
                cu_seqlens_q=cu_seqlens_q,
                cu_seqlens_k=cu_seqlens_k,
                max_seqlen_q=max_seqlen_q,
                max_seqlen_k=max_seqlen_k,
                softmax_scale=scale,
                causal=True,
                window_size=self._window(window),
            )
        )

    def _window(self, window: int | None) -> tuple[int | None, int | None]:
        """Keys left and right of the query's own; the right side stays empty, for attention is causal."""
        return (self._unlimited, self._unlimited) if window is None else (window - 1, 0)


def _output(result: Any) -> torch.Tensor:
    """Release 4, and 3 at first, return the log-sum-exp as well."""
    output: torch.Tensor = result[0] if isinstance(result, tuple) else result
    return output


def _functions(release: FlashAttnRelease) -> tuple[Callable[..., Any], Callable[..., Any]]:
    problems = []
    for module_name in release.modules:
        try:
            module = importlib.import_module(module_name)
            # Without release 2, the parent of release 4's module is a package that holds nothing.
            return module.flash_attn_func, module.flash_attn_varlen_func
        except ModuleNotFoundError as error:
            if error.name is None or not module_name.startswith(error.name):  # something that it needs
                problems.append(str(error))
        except (ImportError, OSError, AttributeError) as error:  # built for another torch or CUDA, most often
            problems.append(str(error))
    purpose = f"attend ({'; '.join(problems)})" if problems else "attend"
    raise MissingDependencyError(release.modules[0], purpose, release.install)
