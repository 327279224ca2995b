"""Processes of test_recorded_steps.py: each case trains as it is and from recorded steps, from the same weights.

Usage: graphs_worker.py FOLDER. Rank r leaves what it saw in FOLDER/rank{r}.pt.
"""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed
from tape import TapeRecorder

from megatron_ext.backend.cpu import CpuBackend
from megatron_ext.config.sections import RunConfig
from megatron_ext.data.loader import MicroBatch
from megatron_ext.launch.environment import ProcessEnvironment
from megatron_ext.train.benchmark import measure, training_step
from megatron_ext.train.setup import build_trainable, form_groups, start_processes
from megatron_ext.train.step import train_step, validation_step

VOCAB, SEQ, ROWS = 259, 16, 2
MICRO_BATCHES = (2, 2, 2, 2, 2, 4, 4, 4)
"""Of each step on each copy of the model: a batch that is ramped up once steps are recorded."""


class Case(NamedTuple):
    """What differs from a small fp32 run on one process for each copy of the model."""

    parallel: dict[str, Any]
    precision: str = "fp32"
    optimizer: dict[str, Any] | None = None


CASES = {
    "DP2 distributed overlapped": Case({"use_distributed_optimizer": True, "overlap_grad_reduce": True}),
    "DP2 bf16": Case({}, "bf16"),
    "DP2 fp16": Case(
        {"overlap_grad_reduce": True},
        "fp16",
        {"initial_loss_scale": 2.0**12, "loss_scale_window": 2, "hysteresis": 1},
    ),
    "TP2 SP recomputed": Case(
        {"tensor_model_parallel_size": 2, "sequence_parallel": True, "recompute_granularity": "full"}
    ),
    "CP2": Case({"context_parallel_size": 2}),
    "PP2": Case({"pipeline_model_parallel_size": 2}),
}


class RecordedCpu(CpuBackend):
    """A CPU whose steps are written down."""

    def __init__(self) -> None:
        super().__init__()
        self.tapes = TapeRecorder()

    def recorder(self) -> TapeRecorder:  # type: ignore[override]
        """Its tapes."""
        return self.tapes


def run_config(case: Case, *, cuda_graphs: bool) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "x",
            "model": {
                "num_layers": 2, "hidden_size": 16, "ffn_hidden_size": 32, "num_attention_heads": 4,
                "num_query_groups": 2, "vocab_size": VOCAB,
            },
            "parallel": case.parallel,
            "kernels": {"cuda_graphs": cuda_graphs},
            "tokenizer": {"type": "ByteTokenizer"},
            "data": {"train": [{"path": "x"}]},
            "training": {
                "micro_batch_size": ROWS, "global_batch_size": 8, "seq_length": SEQ, "train_iters": 10,
                "precision": case.precision,
            },
            "optimizer": {"lr": 1e-2, **(case.optimizer or {})},
            "launch": {"nproc_per_node": 2},
        }
    )  # fmt: skip


def micro_batches(number: int, count: int) -> list[MicroBatch]:
    """Of this copy of the model; every second step has a mask, as far as its rows reach."""
    random = np.random.default_rng([number, parallel_state.get_data_parallel_rank()])
    owner = np.zeros(ROWS, np.int32)
    batches = []
    for _ in range(count):
        tokens = random.integers(0, VOCAB, (ROWS, SEQ + 1)).astype(np.uint16)
        kept = (np.arange(SEQ) < random.integers(1, SEQ, (ROWS, 1))).astype(np.uint8)
        batches.append(MicroBatch(tokens, kept if number % 2 else None, None, owner))
    return batches


def trained(case: Case, *, cuda_graphs: bool) -> dict[str, Any]:
    """Losses, norms and weights of all steps, and validations between them."""
    config, backend = run_config(case, cuda_graphs=cuda_graphs), RecordedCpu()
    form_groups(config.parallel)
    torch.manual_seed(5)
    model_parallel_cuda_manual_seed(5)
    model, optimizer, graphs = build_trainable(config, backend)
    seen: dict[str, Any] = {"steps": [], "validation": []}
    update = 1
    for number, count in enumerate(MICRO_BATCHES):
        outcome = train_step(config, model, optimizer, micro_batches(number, count), update, graphs=graphs)
        update += not outcome.skipped
        seen["steps"].append((outcome.loss.clone(), outcome.grad_norm.clone(), outcome.skipped))
        seen["validation"].append(validation_step(model, micro_batches(100, 1), 1))
    seen["weights"] = [weight.detach().clone() for weight in model[0].parameters()]
    seen["recordings"], seen["replays"] = backend.tapes.recordings, backend.tapes.replays
    return seen


def measured() -> tuple[int, int]:
    """Recordings and replays of a benchmark that times two steps."""
    case = CASES["PP2"]
    config, backend = run_config(case, cuda_graphs=True), RecordedCpu()
    form_groups(config.parallel)
    step = training_step(config, backend, micro_batches(0, 2))
    measure("graphs", config, backend, step, warmup=0, steps=2)
    return backend.tapes.recordings, backend.tapes.replays


def main() -> None:
    folder = Path(sys.argv[1])
    environment = ProcessEnvironment.detect()
    start_processes(run_config(CASES["PP2"], cuda_graphs=True), environment, CpuBackend())
    seen: dict[str, Any] = {
        name: {cuda_graphs: trained(case, cuda_graphs=cuda_graphs) for cuda_graphs in (False, True)}
        for name, case in CASES.items()
    }
    seen["measured"] = measured()
    torch.save(seen, folder / f"rank{environment.rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
