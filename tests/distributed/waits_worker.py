"""Processes of test_host_waits.py: two steps of each layout, the second of them with waits refused.

Usage: waits_worker.py FOLDER. Rank r leaves in FOLDER/rank{r}.json, by case, what it waited for, or null.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from host_waits import HostWaitError, refused_waits
from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed

from megatron_ext.backend.cpu import CpuBackend
from megatron_ext.config.sections import RunConfig
from megatron_ext.launch.environment import ProcessEnvironment
from megatron_ext.train.benchmark import synthetic_batches
from megatron_ext.train.hooks import build_hooks
from megatron_ext.train.setup import build_trainable, form_groups, start_processes
from megatron_ext.train.state import TrainState
from megatron_ext.train.step import train_step

OVERLAPPED = {"use_distributed_optimizer": True, "overlap_grad_reduce": True, "overlap_param_gather": True}
TENSOR = {"tensor_model_parallel_size": 2, "sequence_parallel": True}
CASES: dict[str, dict[str, Any]] = {
    "data parallel": {"parallel": {}},
    "distributed optimizer, overlapped": {"parallel": OVERLAPPED, "training": {"precision": "bf16"}},
    "tensor parallel": {"parallel": TENSOR},
    "tensor parallel, MLP recomputed": {
        "parallel": {**TENSOR, "recompute_granularity": "selective", "recompute_modules": ["mlp"]}
    },
    "tensor parallel, all recomputed": {"parallel": {**TENSOR, "recompute_granularity": "full"}},
    "context parallel": {"parallel": {"context_parallel_size": 2, **OVERLAPPED}},
    "1F1B": {"parallel": {"pipeline_model_parallel_size": 2}},
    "1F1B, tied": {
        "parallel": {"pipeline_model_parallel_size": 2},
        "model": {"untie_embeddings_and_output_weights": False},
    },
    "interleaved": {
        "parallel": {
            "pipeline_model_parallel_size": 2,
            "virtual_pipeline_model_parallel_size": 2,
            **OVERLAPPED,
        }
    },
    "fp16": {"parallel": {}, "training": {"precision": "fp16"}},
}


def run_config(case: dict[str, Any]) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "x",
            "device": "cpu",
            "model": {
                "num_layers": 4, "hidden_size": 16, "ffn_hidden_size": 32, "num_attention_heads": 4,
                "num_query_groups": 2, "vocab_size": 64, **case.get("model", {}),
            },
            "parallel": case["parallel"],
            "tokenizer": {"type": "ByteTokenizer"},
            "data": {"train": [{"path": "x"}]},
            "training": {
                "micro_batch_size": 2, "global_batch_size": 8, "seq_length": 16, "train_iters": 10,
                **case.get("training", {}),
            },
            "optimizer": {"lr": 1e-3},
            "logging": {"log_interval": 10},
            "launch": {"nproc_per_node": 2},
        }
    )  # fmt: skip


def waited_for(case: dict[str, Any]) -> str | None:
    """What a step, or the hooks after one that is not logged, made the host wait for."""
    config, backend = run_config(case), CpuBackend()
    form_groups(config.parallel)
    model_parallel_cuda_manual_seed(5)
    model, optimizer, _ = build_trainable(config, backend)
    sets = SimpleNamespace(names=["one"], groups=[{"tier": "high"}])
    hooks = build_hooks(config, backend, SimpleNamespace(train=sets, valid=None))  # type: ignore[arg-type]
    run: Any = SimpleNamespace(config=config, reached_end=lambda _: False)
    batches = synthetic_batches(config)
    train_step(config, model, optimizer, batches, 1)
    state = TrainState().advance(8, 8 * 16, skipped=False)
    try:
        with refused_waits():
            outcome = train_step(config, model, optimizer, batches, 2)
            for hook in hooks:
                hook.after_step(run, state, outcome)
    except HostWaitError as wait:
        return str(wait)
    return None


def main() -> None:
    folder = Path(sys.argv[1])
    environment = ProcessEnvironment.detect()
    start_processes(run_config(CASES["1F1B"]), environment, CpuBackend())
    torch.manual_seed(5)
    seen = {name: waited_for(case) for name, case in CASES.items()}
    (folder / f"rank{environment.rank}.json").write_text(json.dumps(seen))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
