"""Sums by group against one Python loop over every row of every step."""

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from megatron_ext.observe.groups import group_sets
from megatron_ext.train.group_losses import GroupLosses
from megatron_ext.train.step import StepOutcome, add_by_set

NAMES = ("eng", "deu", "books/eng", "fin")
GROUPS = (
    {"tier": "high", "category": "mono"},
    {"tier": "high", "category": "mono"},
    {"label": "eng", "category": "book"},
    {"tier": "low", "category": "mono"},
)
LABELS = ("eng", "deu", "eng", "fin")


def outcome(sums: np.ndarray, sets: np.ndarray) -> StepOutcome:
    return StepOutcome(torch.from_numpy(sums), sets, torch.zeros(()), 0.0, skipped=False)


class Steps:
    """Random steps of one process, and what a loop over their rows makes of them."""

    def __init__(self, sets: list[int]) -> None:
        self.random, self.sets = np.random.default_rng(3), sets
        self.expected: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0])

    def step(self) -> StepOutcome:
        sets = self.random.choice(self.sets, size=6).astype(np.int32)
        sums = np.stack([self.random.uniform(5, 90, 6), self.random.integers(1, 30, 6)], axis=1)
        for owner, (loss, tokens) in zip(sets, sums, strict=True):
            for dimension, value in {**GROUPS[owner], "label": LABELS[owner]}.items():
                self.expected[dimension, value][0] += loss
                self.expected[dimension, value][1] += tokens
        return outcome(sums, sets)

    def taken(self, dimension: str) -> dict[str, tuple[float, float]]:
        """Mean loss and tokens by value; the next begin at zero."""
        found = {value: sums for (one, value), sums in self.expected.items() if one == dimension}
        self.expected = defaultdict(
            lambda: [0.0, 0], {key: sums for key, sums in self.expected.items() if key[0] != dimension}
        )
        return {value: (loss / tokens, tokens) for value, (loss, tokens) in found.items()}


def test_each_interval_has_the_losses_of_its_own_steps() -> None:
    """Labels every second time, over both intervals; what was not read (deu) or has no tier (books) is not there."""
    losses = GroupLosses(group_sets(NAMES, GROUPS, per_label=None), 4, torch.device("cpu"))
    steps = Steps([0, 2, 3])
    consumed = np.array([100, 20, 3000, 7])
    for record in range(1, 5):
        for _ in range(record):
            losses.add(steps.step())
        with_labels = record % 2 == 0
        scores = losses.scores(losses.take().tolist(), consumed, with_labels=with_labels)
        assert set(scores) == {"tier", "category"} | ({"label"} if with_labels else set())
        for dimension, values in scores.items():
            expected = steps.taken(dimension)
            assert values.keys() == expected.keys()
            for value, score in values.items():
                assert (score.lm_loss, score.tokens) == pytest.approx(expected[value])
        assert {value: score.consumed_tokens for value, score in scores["tier"].items()} == {
            "high": 120,
            "low": 7,
        }
        if with_labels:
            assert scores["label"].keys() == {"eng", "fin"}
            assert scores["label"]["eng"].consumed_tokens == 3100


def test_a_run_without_groups_has_nothing_to_add_or_to_reduce() -> None:
    losses = GroupLosses(group_sets(NAMES, [{}] * 4, per_label=None), 4, torch.device("cpu"))
    losses.add(Steps([0]).step())
    assert losses.take().tolist() == []


def test_filler_rows_count_nowhere() -> None:
    sums = np.array([[3.0, 2.0], [np.nan, 5.0], [4.0, 1.0]])
    totals = torch.zeros(2, 2, dtype=torch.float64)
    add_by_set(totals, torch.from_numpy(sums), np.array([1, -1, 1], dtype=np.int32))
    assert totals.tolist() == [[0, 0], [7, 3]]


class Operations(TorchDispatchMode):
    """What torch is asked to do on the device."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


def test_a_step_is_one_operation_that_waits_for_nothing() -> None:
    losses = GroupLosses(group_sets(NAMES, GROUPS, per_label=None), 4, torch.device("cpu"))
    step = Steps([0, 1, 2, 3]).step()
    with Operations() as operations:
        losses.add(step)
    wrapping = "aten.lift_fresh.default"  # of the host's array, which does nothing
    assert [name for name in operations.names if name != wrapping] == ["aten.index_add_.default"]
