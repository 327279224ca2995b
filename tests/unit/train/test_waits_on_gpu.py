"""A training step on a GPU, where CUDA itself says whether the host waits."""

import contextlib
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist

from megatron_ext.backend.cuda import CudaBackend
from megatron_ext.config.sections import RunConfig
from megatron_ext.launch.environment import ProcessEnvironment
from megatron_ext.train.benchmark import synthetic_batches
from megatron_ext.train.setup import build_trainable, leave_processes, start_processes
from megatron_ext.train.step import train_step

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
RUN = RunConfig.model_validate(
    {
        "name": "x",
        "device": "cuda",
        "model": {
            "num_layers": 2, "hidden_size": 256, "ffn_hidden_size": 512, "num_attention_heads": 4, "vocab_size": 512,
        },
        "parallel": {"use_distributed_optimizer": True, "overlap_grad_reduce": True, "overlap_param_gather": True},
        "tokenizer": {"type": "ByteTokenizer"},
        "data": {"train": [{"path": "x"}]},
        "training": {"micro_batch_size": 2, "global_batch_size": 4, "seq_length": 128, "train_iters": 10},
        "optimizer": {"lr": 1e-3},
    }
)  # fmt: skip


@contextlib.contextmanager
def refused_waits() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_step_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29531"}.items():
        monkeypatch.setenv(name, value)
    backend = CudaBackend(0)
    start_processes(RUN, ProcessEnvironment.detect(), backend)
    try:
        model, optimizer, _ = build_trainable(RUN, backend)
        batches = synthetic_batches(RUN)
        for update in (1, 2):  # Triton compiles, and pinned memory is allocated
            train_step(RUN, model, optimizer, batches, update)
        with refused_waits():
            train_step(RUN, model, optimizer, batches, 3)
    finally:
        if dist.is_initialized():
            leave_processes()
