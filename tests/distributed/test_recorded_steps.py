"""Recorded steps equal those that are not, in every layout that graphs go with, bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from graphs_worker import CASES, MICRO_BATCHES
from worker_processes import run_worker

from megatron_ext.train.graphs import WARMUP_STEPS

WORKER = Path(__file__).with_name("graphs_worker.py")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What each process saw."""
    folder = tmp_path_factory.mktemp("graphs")
    run_worker(WORKER, folder, 2)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_a_recorded_step_is_the_same_step(ranks: list[Any], case: str) -> None:
    for rank in ranks:
        eager, recorded = rank[case][False], rank[case][True]
        assert len(eager["steps"]) == len(MICRO_BATCHES)
        for mine, theirs in zip(recorded["steps"], eager["steps"], strict=True):
            assert torch.equal(mine[0], theirs[0])
            torch.testing.assert_close(mine[1], theirs[1], rtol=0, atol=0, equal_nan=True)
            assert mine[2] == theirs[2]
        assert all(map(torch.equal, recorded["validation"], eager["validation"]))
        assert all(map(torch.equal, recorded["weights"], eager["weights"]))


@pytest.mark.parametrize("case", CASES)
def test_each_number_of_micro_batches_is_recorded_once(ranks: list[Any], case: str) -> None:
    for rank in ranks:
        assert (rank[case][False]["recordings"], rank[case][False]["replays"]) == (0, 0)
        assert rank[case][True]["recordings"] == len(set(MICRO_BATCHES))
        assert rank[case][True]["replays"] == len(MICRO_BATCHES) - WARMUP_STEPS


def test_the_loss_scale_changes_between_replays(ranks: list[Any]) -> None:
    """It doubles after two good steps, until gradients overflow, and halves until they fit again."""
    skipped = [step[2] for step in ranks[0]["DP2 fp16"][True]["steps"]]
    assert skipped[WARMUP_STEPS:] == [False, True, True, False, False]


def test_a_benchmark_times_replays_only(ranks: list[Any]) -> None:
    """One before them records; two more are profiled."""
    assert [rank["measured"] for rank in ranks] == [(1, 1 + 2 + 2)] * 2
