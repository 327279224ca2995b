"""Which device a process takes."""

from pathlib import Path

import pytest
import torch

from megatron_ext.backend import device as module
from megatron_ext.backend.cpu import CpuBackend
from megatron_ext.backend.cuda import CudaBackend
from megatron_ext.backend.device import select_backend
from megatron_ext.errors import LaunchError


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(module.logger, "warning", said.append)
    return said


def with_gpus(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)


def test_each_process_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch, warnings: list[str]) -> None:
    with_gpus(monkeypatch, 4)
    for device in ("auto", "cuda"):
        chosen = select_backend(device, local_rank=3, local_world_size=4)
        assert isinstance(chosen, CudaBackend)
        assert (chosen.device, chosen.collective) == (torch.device("cuda", 3), "nccl")
    assert isinstance(select_backend("cpu", 3, 4), CpuBackend)
    assert warnings == []


def test_too_few_gpus_are_refused_or_left_alone_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, warnings: list[str]
) -> None:
    with_gpus(monkeypatch, 1)
    with pytest.raises(LaunchError, match="this node has 1 GPUs for 4 processes"):
        select_backend("cuda", 0, 4)
    assert isinstance(select_backend("auto", 0, 4), CpuBackend)
    assert warnings == ["1 GPUs for 4 processes on this node: training on the CPU"]


def test_without_a_gpu_there_is_nothing_to_warn_of(
    monkeypatch: pytest.MonkeyPatch, warnings: list[str]
) -> None:
    with_gpus(monkeypatch, 0)
    assert isinstance(select_backend("auto", 0, 1), CpuBackend)
    assert warnings == []


def test_peak_memory_is_the_kernel_s_figure() -> None:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    peak_kib = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    assert CpuBackend().peak_memory_bytes() == pytest.approx(peak_kib * 1024, rel=0.02)


def test_a_cpu_has_no_graphs() -> None:
    with pytest.raises(LaunchError, match=r"kernels\.cuda_graphs=true needs a GPU"):
        CpuBackend().recorder()
