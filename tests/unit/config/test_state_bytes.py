"""Bytes a parameter by the keys of a run, against the sizes that torch has for the dtypes."""

from typing import Any

import pytest
import torch

from megatron_ext.config.sections import RunConfig
from megatron_ext.config.state_bytes import state_bytes

TORCH = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
HALVES = {"main_grads_dtype": "bf16", "exp_avg_dtype": "bf16", "exp_avg_sq_dtype": "bf16"}


def run_with(precision: str, optimizer: dict[str, Any]) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "x",
            "model": {
                "num_layers": 1, "hidden_size": 8, "ffn_hidden_size": 8, "num_attention_heads": 1, "vocab_size": 259,
            },
            "tokenizer": {"type": "ByteTokenizer"},
            "data": {"train": [{"path": "x"}]},
            "training": {
                "micro_batch_size": 1, "global_batch_size": 1, "seq_length": 8, "train_iters": 1,
                "precision": precision,
            },
            "optimizer": {"lr": 1e-3, **optimizer},
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("precision", "optimizer", "total"),
    [
        ("fp32", {}, 16),
        ("bf16", {}, 18),
        ("fp16", {}, 18),
        ("bf16", HALVES, 12),
        ("bf16", {**HALVES, "store_param_remainders": True}, 10),
        ("bf16", {"store_param_remainders": True}, 16),
        ("bf16", {"exp_avg_dtype": "bf16"}, 16),
        ("bf16", {"main_grads_dtype": "bf16", "store_param_remainders": True}, 14),
    ],
)
def test_the_sum_of_a_choice(precision: str, optimizer: dict[str, Any], total: int) -> None:
    run = run_with(precision, optimizer)
    found = state_bytes(run)
    assert found.total == total
    assert found.weight == TORCH[precision].itemsize
    assert found.gradient == TORCH[run.optimizer.main_grads_dtype].itemsize
