"""Process of test_traced_step.py: traces runs without data, which redirects a process for good; JSON on stdout.

Usage: traced_process.py NAME…, of RUNS
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import torch

from megatron_ext.config.load import load_run_config
from megatron_ext.config.sections import RunConfig
from megatron_ext.model.hardware import find_gpu
from megatron_ext.model.memory import estimate_stage
from megatron_ext.train.trace.counter import StepCounter
from megatron_ext.train.trace.step import first_ranks, trace_step

REPOSITORY = Path(__file__).parents[3]
ONE = ["launch.nproc_per_node=1"]
EIGHT = ["launch.nproc_per_node=8", "training.global_batch_size=64"]
SHARDED = ["parallel.use_distributed_optimizer=true"]
SMALL_STATES = [
    "optimizer.main_grads_dtype=bf16", "optimizer.exp_avg_dtype=bf16", "optimizer.exp_avg_sq_dtype=bf16",
    "optimizer.store_param_remainders=true",
]  # fmt: skip
GROUPED = ["model.num_query_groups=8", "model.ffn_hidden_size=14336", "model.vocab_size=128256"]
RUNS: dict[str, list[str]] = {
    "one micro-batch": [*ONE, *SHARDED, "training.global_batch_size=1"],
    "two micro-batches": [*ONE, *SHARDED, "training.global_batch_size=2"],
    "plain optimizer": [*ONE, "training.global_batch_size=2"],
    "10 bytes, mlp again": [
        *EIGHT, *SHARDED, *SMALL_STATES, "parallel.recompute_granularity=selective", "parallel.recompute_modules=[mlp]",
    ],
    "all again, chunked loss": [
        *EIGHT, *SHARDED, *GROUPED, "parallel.recompute_granularity=full", "kernels.loss_chunk_tokens=1024",
    ],
    "interleaved": [
        *EIGHT, *SHARDED, "parallel.tensor_model_parallel_size=2", "parallel.pipeline_model_parallel_size=2",
        "parallel.virtual_pipeline_model_parallel_size=2", "parallel.sequence_parallel=true",
    ],
    "1F1B": [
        *EIGHT, *SHARDED, "parallel.pipeline_model_parallel_size=4", "parallel.tensor_model_parallel_size=2",
        "parallel.sequence_parallel=true", "parallel.overlap_grad_reduce=true",
    ],
    "context, documents": [
        *EIGHT, *SHARDED, *GROUPED, "parallel.context_parallel_size=4", "data.reset_attention_mask=true",
        "parallel.overlap_grad_reduce=true", "parallel.overlap_param_gather=true",
    ],
    "fp16": [*ONE, *SHARDED, "training.global_batch_size=1", "training.precision=fp16"],
}  # fmt: skip


def config_of(name: str) -> RunConfig:
    return load_run_config(
        [REPOSITORY / "configs/models/llama2_7b.yaml"],
        [
            "name=x", "tokenizer.type=ByteTokenizer", "data.train=[{path: x}]", "training.train_iters=10",
            "training.micro_batch_size=1", "training.seq_length=4096", "optimizer.lr=1.0e-4", "model.num_layers=16",
            *RUNS[name],
        ],
    )  # fmt: skip


def traced(name: str) -> list[dict[str, Any]]:
    config, gpu = config_of(name), find_gpu("h100")
    stages = []
    for rank in first_ranks(config):
        trace = trace_step(config, rank, gpu)
        seen = {"total": trace.total, "estimated": estimate_stage(config, trace.stage).allocated}
        stages.append(dataclasses.asdict(trace) | seen)
    return stages


def counted() -> dict[str, Any]:
    """What a counter makes of operations whose cost is known."""
    counter = StepCounter()
    with counter:
        kept = torch.empty(1000, device="meta")
        counter.restart()
        doubled = kept * 2
        doubled.zero_()
        del doubled
        view = kept.view(10, 100)
        answer = float(kept.sum()) + float(view.mm(view.t())[0, 0])
        torch.zeros(100).to("meta")
    works = [dataclasses.asdict(work) for kind in counter.done.values() for work in kind]
    return {
        "live": counter.live, "peak": counter.peak, "waits": counter.waits, "uploads": counter.uploads, "works": works,
        "answer": answer,
    }  # fmt: skip


def main() -> None:
    names = sys.argv[1:]
    seen = {"counted": counted(), **{name: traced(name) for name in names}}
    sys.stdout.write("\n" + json.dumps(seen))


if __name__ == "__main__":
    main()
