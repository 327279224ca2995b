"""Steps on tensors without data: that the GPU's code runs, waits for nothing, and takes what formulas say it does."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from traced_process import RUNS, config_of

from megatron_ext.model.flops import flops_per_token, matrix_parameters_per_layer

pytest.importorskip("triton")
SEQ = 4096


@pytest.fixture(scope="module")
def seen() -> Any:
    process = Path(__file__).with_name("traced_process.py")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(process), *RUNS],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", RUNS)
def test_memory_is_what_the_estimate_says(name: str, seen: Any) -> None:
    for stage in seen[name]:
        assert stage["estimated"] == pytest.approx(stage["total"], rel=0.05), stage["rank"]


@pytest.mark.parametrize("name", RUNS)
def test_a_step_waits_for_nothing(name: str, seen: Any) -> None:
    """But for fp16's question whether gradients overflowed; and all that is copied to the device are the tokens."""
    for stage in seen[name]:
        assert stage["waits"] == (1 if name == "fp16" else 0)
        config = config_of(name)
        token = 2 if config.model.vocab_size < 2**16 else 4
        starts = 8 if config.data.reset_attention_mask else 0
        assert stage["uploads"] == stage["num_microbatches"] * (token * (SEQ + 1) + starts)


def test_products_are_those_of_the_formula(seen: Any) -> None:
    config = config_of("one micro-batch")
    (stage,) = seen["one micro-batch"]
    attention = stage["kinds"]["attention"]["flops"] * 3 / 3.5  # flash attention computes its scores twice
    total = stage["kinds"]["GEMM"]["flops"] + attention
    assert total == pytest.approx(flops_per_token(config.model, SEQ, causal=True) * SEQ, rel=1e-3)


def test_full_recomputation_runs_every_layer_again(seen: Any) -> None:
    """And the chunked loss its logits."""
    model = config_of("all again, chunked loss").model
    (stage,) = seen["all again, chunked loss"]
    head = 8 * model.hidden_size * model.vocab_size
    layers = 8 * model.num_layers * matrix_parameters_per_layer(model)
    assert stage["kinds"]["GEMM"]["flops"] == pytest.approx((layers + head) * SEQ * 2, rel=1e-3)


def test_a_second_micro_batch_takes_no_more_memory(seen: Any) -> None:
    (one,), (two,) = seen["one micro-batch"], seen["two micro-batches"]
    assert two["passes"] == pytest.approx(one["passes"], rel=0.01)
    assert two["kinds"]["attention"]["launches"] == 2 * one["kinds"]["attention"]["launches"]


def test_what_is_counted(seen: Any) -> None:
    counted = seen["counted"]
    assert (counted["waits"], counted["uploads"], counted["answer"]) == (2, 400, 0.0)
    rounded = 4096  # 1,000 values of 4 bytes in pieces of 512
    assert counted["live"] == rounded
    assert counted["peak"] == 2 * rounded
    works = [(work["kind"], work["flops"], work["moved"]) for work in counted["works"]]
    assert works == [
        ("elementwise", 0, 8000),  # doubled
        ("elementwise", 0, 4000),  # zeroed: written only
        ("elementwise", 0, 4004),  # summed
        ("elementwise", 0, 400),  # copied from the host
        ("GEMM", 2 * 10 * 100 * 10, 8400),
    ]
