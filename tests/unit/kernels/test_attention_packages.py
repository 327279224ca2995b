"""The wrappers of kernels that need a GPU, on functions that have the kernels' signatures."""

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from attention_formula import assert_same, attend_documents, attend_rows, inputs, like
from flash_attn_stand_ins import flash2, flash3, flash4, masked_documents
from torch import Tensor
from torch.nn.attention import SDPBackend

from megatron_ext.errors import MissingDependencyError
from megatron_ext.kernels.attention import sdpa
from megatron_ext.kernels.attention.base import AttentionBackend
from megatron_ext.kernels.attention.flash_attn import FlashAttention


def torch_on_a_gpu(monkeypatch: pytest.MonkeyPatch, *, told_of_groups: bool) -> AttentionBackend:
    """torch's varlen_attn has no CPU kernel; its flash kernel for whole rows has."""
    signature = inspect.signature(sdpa.varlen_attn)
    if not told_of_groups:
        known = [one for name, one in signature.parameters.items() if name != "enable_gqa"]
        signature = signature.replace(parameters=known)

    def varlen_attn(*arguments: Any, **options: Any) -> Tensor:
        call = signature.bind(*arguments, **options)
        call.apply_defaults()
        given = call.arguments
        tensors = given["query"], given["key"], given["value"]
        if told_of_groups:
            assert given["enable_gqa"] == (tensors[0].shape[1] != tensors[1].shape[1])
        starts, longest = (given["cu_seq_q"], given["cu_seq_k"]), (given["max_q"], given["max_k"])
        return masked_documents(tensors, starts, longest, scale=given["scale"], window=given["window_size"])

    monkeypatch.setattr(sdpa, "varlen_attn", varlen_attn)
    monkeypatch.setattr(sdpa, "TOLD_OF_GROUPS", told_of_groups)
    monkeypatch.setattr(sdpa, "_on_gpu", lambda _tensor: True)
    return sdpa.SdpaFlashAttention()


MODULES = {
    "flash2": ("flash_attn", flash2),
    "flash3": ("flash_attn_interface", flash3),
    "flash4": ("flash_attn.cute", flash4),
}


def install(monkeypatch: pytest.MonkeyPatch, module: str, functions: dict[str, Callable[..., Any]]) -> None:
    names = module.split(".")
    for depth in range(1, len(names) + 1):
        monkeypatch.setitem(sys.modules, ".".join(names[:depth]), ModuleType(names[depth - 1]))
    vars(sys.modules[module]).update(functions)


@pytest.fixture(params=[*MODULES, "sdpa_flash", "sdpa_flash of torch 2.11"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AttentionBackend:
    if request.param.startswith("sdpa_flash"):
        told_of_groups = sdpa.TOLD_OF_GROUPS and request.param == "sdpa_flash"
        return torch_on_a_gpu(monkeypatch, told_of_groups=told_of_groups)
    module, functions = MODULES[request.param]
    install(monkeypatch, module, functions())
    return FlashAttention(request.param)


CALLS = pytest.mark.parametrize(("scale", "window"), [(None, None), (0.3, None), (None, 1), (0.3, 3)])


@CALLS
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("seq_k", [5, 8])
def test_rows(
    *, backend: AttentionBackend, kv_heads: int, seq_k: int, scale: float | None, window: int | None
) -> None:
    exact = inputs((2, 5, 4, 8), (2, seq_k, kv_heads, 8), (2, seq_k, kv_heads, 8))
    ours = like(exact, torch.float64)
    output = backend.causal(*ours, scale, window)
    assert_same(ours, output, exact, attend_rows(*exact, scale, window), 1e-11)


@CALLS
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_documents(
    *, backend: AttentionBackend, kv_heads: int, scale: float | None, window: int | None
) -> None:
    starts_q, starts_k = [0, 1, 4, 4, 6], [0, 1, 6, 8, 10]
    exact = inputs((6, 4, 8), (10, kv_heads, 8), (10, kv_heads, 8))
    ours = like(exact, torch.float64)
    boundaries = (torch.tensor(starts, dtype=torch.int32) for starts in (starts_q, starts_k))
    output = backend.varlen(*ours, *boundaries, 3, 5, scale, window)
    expected = attend_documents(*exact, starts_q, starts_k, scale=scale, window=window)
    assert_same(ours, output, exact, expected, 1e-11)


def test_torch_is_told_which_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[SDPBackend] = []

    @contextlib.contextmanager
    def sdpa_kernel(kernel: SDPBackend) -> Iterator[None]:
        asked.append(kernel)
        yield

    monkeypatch.setattr(sdpa, "sdpa_kernel", sdpa_kernel)
    monkeypatch.setattr(sdpa, "_on_gpu", lambda _tensor: True)
    exact = inputs((2, 5, 4, 8), (2, 5, 2, 8), (2, 5, 2, 8))
    for backend in (sdpa.SdpaFlashAttention(), sdpa.CudnnAttention()):
        torch.testing.assert_close(backend.causal(*exact, 0.3), attend_rows(*exact, 0.3, None))
    assert asked == [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION]


def test_cudnn_refuses_what_its_kernel_would_mask_otherwise() -> None:
    query, key = inputs((2, 5, 4, 8), (2, 6, 4, 8))
    with pytest.raises(ValueError, match="whole rows only"):
        sdpa.CudnnAttention().causal(query, key, key)
    with pytest.raises(ValueError, match="whole rows only"):
        sdpa.CudnnAttention().causal(query, query, query, window=2)
    with pytest.raises(ValueError, match="not documents"):
        sdpa.CudnnAttention().varlen()


@pytest.mark.parametrize("name", MODULES)
def test_a_package_that_is_not_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("flash_attn", "flash_attn_interface", "flash_attn_3"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match="install it with"):
        FlashAttention(name)


def test_release_3_inside_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn_interface", None)
    install(monkeypatch, "flash_attn_3.flash_attn_interface", flash3())
    assert FlashAttention("flash3").name == "flash3"


def test_release_4_alone_is_not_release_2(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "flash_attn.cute", flash4())
    with pytest.raises(MissingDependencyError, match="has no attribute 'flash_attn_func'"):
        FlashAttention("flash2")


def test_a_package_that_does_not_import_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "flash_attn_interface", raising=False)
    monkeypatch.setitem(sys.modules, "flash_attn_3", None)
    module = tmp_path / "flash_attn_interface.py"
    module.write_text("raise ImportError('flash_attn_3/_C.so: undefined symbol: aoti')\n", encoding="utf-8")
    with pytest.raises(MissingDependencyError, match=r"attend \(.*undefined symbol: aoti\); install it with"):
        FlashAttention("flash3")
