"""A whole model on Triton's kernels, in its interpreter, computes what plain operations compute."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fused_worker import LAYOUTS, TRAINED
from worker_processes import run_worker

WORKER = Path(__file__).with_name("fused_worker.py")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """How far the two are apart in each process."""
    folder = tmp_path_factory.mktemp("fused")
    run_worker(WORKER, folder, 2, TRITON_INTERPRET="1")
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_losses_logits_and_gradients_are_equal(ranks: list[Any], layout: str) -> None:
    losses_bound, gradients_bound = (0.1, 0.05) if layout == "bf16" else (1e-5, 1e-5)
    for rank in ranks:
        seen = rank["layouts"][layout]
        assert seen["kinds"] == ("GPTModel", "FusedLossModel")
        assert seen["loss"] > 1
        assert seen["losses"] < losses_bound
        assert seen["logits"] < losses_bound
        assert seen["gradients"]
        assert {name: error for name, error in seen["gradients"].items() if error > gradients_bound} == {}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_module_with_weights_is_called(ranks: list[Any], layout: str) -> None:
    """megatron-core waits there for weights that overlap_param_gather has under way: reading them without is a race."""
    assert [rank["layouts"][layout]["uncalled"] for rank in ranks] == [[], []]


@pytest.mark.parametrize("layout", TRAINED)
def test_training_is_equal(ranks: list[Any], layout: str) -> None:
    """Over pipeline stages, which hand on what a fused layer leaves, and with gradients reduced as they come."""
    for rank in ranks:
        plain, fused = rank["trained"][layout][False], rank["trained"][layout][True]
        assert len(plain) == 2
        np.testing.assert_allclose(fused, plain, rtol=1e-5)


def test_nothing_waits_for_the_device(ranks: list[Any]) -> None:
    for rank in ranks:
        assert rank["waits"] == {"DP2": 0, "TP2 SP": 0, "PP2": 0}
