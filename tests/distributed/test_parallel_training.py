"""Two real processes: megatron-core's silent traps, each seen where it would first show."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_worker import LAYOUTS, STATES, STEPS, VOCAB
from worker_processes import run_worker

WORKER = Path(__file__).with_name("training_worker.py")
NORM_WEIGHTS = 5  # two in each of two layers, and the last


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What each process saw."""
    folder = tmp_path_factory.mktemp("training")
    run_worker(WORKER, folder, 2)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


def test_the_reported_losses_and_norm_are_those_of_plain_autograd(ranks: list[Any]) -> None:
    """Of the mean over all tokens, with ranks and micro-batches of unequal size; nothing divided on the way.

    And of each set, whose rows lie in all micro-batches: every token counted once.
    """
    for rank in ranks:
        assert len(rank["autograd"]) == 2 + 2 * 3
        assert rank["layouts"]["DP2"][0] == pytest.approx(rank["autograd"], rel=1e-5)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "DP2"])
def test_every_layout_reports_the_same_losses_and_norms(ranks: list[Any], layout: str) -> None:
    """259 tokens on TP 2 are 260 rows; and without megatron-core's marks on weights, TP halves the norm."""
    for rank in ranks:
        assert len(rank["layouts"][layout]) == STEPS
        np.testing.assert_allclose(rank["layouts"][layout], rank["layouts"]["DP2"], rtol=1e-5)


def test_weight_decay_shrinks_matrices_and_leaves_norms(ranks: list[Any]) -> None:
    factors = ranks[0]["weight decay"]
    norms = {name for name in factors if "norm" in name}
    assert len(norms) == NORM_WEIGHTS
    expected = {name: 1.0 if name in norms else 1 - 0.1 * 0.5 for name in factors}
    assert factors == pytest.approx(expected, rel=1e-6)


def test_a_row_that_no_token_has_is_never_chosen_and_never_learns(ranks: list[Any]) -> None:
    assert [rank["padding"]["columns"] for rank in ranks] == [VOCAB // 2 + 1] * 2
    lowest = torch.finfo(torch.float32).min
    assert ranks[1]["padding"]["last logits"] == (lowest, lowest)
    assert ranks[1]["padding"]["gradients"] == [0.0, 0.0]
    # On rank 0 the last row is a token like any other.
    assert ranks[0]["padding"]["last logits"][0] > -100
    assert ranks[0]["padding"]["gradients"][1] > 0


def test_steps_are_counted_on_after_loading(ranks: list[Any]) -> None:
    """A count that is lost or shared bends Adam's bias correction."""
    for rank in ranks:
        assert rank["distributed optimizer"]["steps"] == (2, 4)


def test_a_loaded_distributed_optimizer_goes_on_as_if_it_had_not_stopped(ranks: list[Any]) -> None:
    for rank in ranks:
        seen = rank["distributed optimizer"]
        assert seen["resumed"] == seen["through"]
        assert seen["equal weights"]


@pytest.mark.parametrize(("name", "size"), list(zip(STATES, (12, 8, 6), strict=True)))
def test_each_choice_of_states_is_saved_and_resumed_bit_for_bit(
    ranks: list[Any], name: str, size: int
) -> None:
    """``size``: bytes of master and moments a value; two ranks share the values between them."""
    for rank in ranks:
        seen = rank["states"][name]
        assert seen["loaded as saved"]
        assert seen["weights alone"]
        assert seen["resumed"] == seen["through"]
        assert seen["equal states"]
        assert seen["bytes"] == size * seen["values"]


def test_reduced_states_follow_full_ones(ranks: list[Any]) -> None:
    """From bf16 gradients on, two ranks and four micro-batches: the first steps differ by bf16's rounding."""
    full, *reduced = (ranks[0]["states"][name] for name in STATES)
    assert full["first"][0][0] == reduced[0]["first"][0][0] == reduced[1]["first"][0][0]
    for other in reduced:
        np.testing.assert_allclose(other["through"], full["through"], rtol=2e-2)


def test_a_checkpoint_of_one_choice_serves_another(ranks: list[Any]) -> None:
    assert all(rank["states"]["another choice"] for rank in ranks)
