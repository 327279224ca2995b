"""The formulas of memory against the bytes that torch and megatron-core really keep, within 5 %."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from measured_process import run_config

from megatron_ext.model.activations import activation_bytes, kept_by_layer
from megatron_ext.model.memory import estimate

LAYERS = 3  # the larger of the two models measured
TOKENS = 2 * 128


def measured(precision: str) -> Any:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("measured_process.py")), precision],
        env={**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def in_fp32() -> Any:
    return measured("fp32")


def test_activations_of_plain_operations(in_fp32: Any) -> None:
    small, large = in_fp32["activations"]["plain"]
    config = run_config("fp32", LAYERS)
    assert activation_bytes(config, 0) == pytest.approx(large, rel=0.05)
    layer = sum(kept.elements for kept in kept_by_layer(config.model, kernels="plain")) * 4
    assert layer == pytest.approx((large - small) / 2 / TOKENS, rel=0.05)


def test_norms_of_queries_and_keys_keep_their_inputs(in_fp32: Any) -> None:
    plain, normed = (in_fp32["activations"][name][1] for name in ("plain", "qk_layernorm"))
    model = run_config("fp32", LAYERS).model
    without, with_norms = (
        sum(kept.elements for kept in kept_by_layer(one, kernels="plain"))
        for one in (model, model.model_copy(update={"qk_layernorm": True}))
    )
    added = LAYERS * TOKENS * (with_norms - without) * 4
    assert normed - plain == pytest.approx(added, rel=0.02)


def test_a_fused_swiglu_keeps_its_input_only(in_fp32: Any) -> None:
    plain, fused = (in_fp32["activations"][name][1] for name in ("plain", "fused"))
    kept = {
        one.name: one.elements for one in kept_by_layer(run_config("fp32", LAYERS).model, kernels="plain")
    }
    swiglu = kept["SiLU of the gate, and the halves copied"]
    assert plain - fused == pytest.approx(LAYERS * TOKENS * swiglu * 4, rel=0.01)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_states(precision: str, in_fp32: Any) -> None:
    seen = in_fp32 if precision == "fp32" else measured(precision)
    memory = estimate(run_config(precision, LAYERS))
    for part, size in seen["states"].items():
        assert getattr(memory, part) == pytest.approx(size, rel=0.01), part
