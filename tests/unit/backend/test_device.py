"""Which device a process takes."""

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


def test_peak_memory_is_that_since_the_reset() -> None:
    backend, size = CpuBackend(), 200 * 2**20
    backend.reset_peak_memory()
    before = backend.peak_memory_bytes()
    held = torch.ones(size, dtype=torch.uint8)
    del held
    assert backend.peak_memory_bytes() - before == pytest.approx(size, rel=0.05)
    backend.reset_peak_memory()
    assert backend.peak_memory_bytes() - before < size / 2


def test_a_cpu_has_no_graphs() -> None:
    with pytest.raises(LaunchError, match=r"kernels\.cuda_graphs=true needs a GPU"):
        CpuBackend().recorder()
