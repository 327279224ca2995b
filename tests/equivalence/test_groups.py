"""Loss and tokens by label and tier in whole runs: against counting, after a resume, and where nobody asks for them."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from comparable_runs import SEQ_LENGTH, TRAIN_ITERS, Finished, World, launch

from megatron_ext.config.dump import load_resolved
from megatron_ext.data.loader import TrainLoader
from megatron_ext.data.sampler import BatchSampler
from megatron_ext.train.inputs import open_inputs

# Records at 3, 5, 6, 9, … and 20: where an interval ends, and before each save. Labels at every 6th step and at saves.
INTERVALS = ("logging.log_interval=3", "logging.label_interval=2", "checkpoint.save_interval=5")
RECORDS = [step for step in range(1, TRAIN_ITERS + 1) if step % 3 == 0 or step % 5 == 0]
WITH_LABELS = [step for step in RECORDS if step % 6 == 0 or step % 5 == 0]
GROUPS = [
    {"label": "eng_Latn", "tier": "high", "category": "mono"},
    {"label": "fin_Latn", "tier": "high", "category": "mono"},
    {"label": "Hindi", "tier": "low", "category": "mono"},
]
MEASURED = ("iteration_time_s", "tokens_per_second_per_gpu", "model_tflops_per_gpu")


@pytest.fixture(scope="module")
def through(world: World, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return launch(world, tmp_path_factory.mktemp("through"), *INTERVALS)


def reproducible(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """All that a record says but how long it took."""
    return [{key: value for key, value in record.items() if key not in MEASURED} for record in records]


def test_tokens_of_each_group_are_those_of_the_batches(through: Finished) -> None:
    assert [record["iteration"] for record in through.train] == RECORDS
    assert [r["iteration"] for r in through.train if "label" in r["per_group"]] == WITH_LABELS
    train = open_inputs(load_resolved(through.folder / "run.yaml")).datasets.train
    batches = TrainLoader(train, BatchSampler(8, 8, 0, 1), 1).batches(0)
    consumed: dict[tuple[str, str], int] = defaultdict(int)
    tokens: dict[tuple[str, str], int] = defaultdict(int)
    position = 0
    for record in through.train:
        while position < record["consumed_samples"]:
            (batch,) = next(batches)
            position += len(batch.dataset_index)
            for row, owner in enumerate(batch.dataset_index):
                counted = SEQ_LENGTH if batch.loss_mask is None else int(batch.loss_mask[row].sum())
                for group in GROUPS[owner].items():
                    consumed[group] += SEQ_LENGTH
                    tokens[group] += counted
        for dimension, scores in record["per_group"].items():
            expected = {value: count for (one, value), count in tokens.items() if one == dimension}
            assert {value: score["tokens"] for value, score in scores.items()} == expected
            for value, score in scores.items():
                assert score["consumed_tokens"] == consumed[dimension, value]
                del tokens[dimension, value]
        assert record["per_group"]["category"]["mono"]["consumed_tokens"] == record["consumed_tokens"]


def test_tiers_are_made_of_their_labels(through: Finished) -> None:
    """Where labels are in two records running, both are over the same steps."""
    for before, record in zip(through.train, through.train[1:], strict=False):
        if {before["iteration"], record["iteration"]} <= set(WITH_LABELS):
            labels, tiers = record["per_group"]["label"], record["per_group"]["tier"]
            high = [labels[label] for label in ("eng_Latn", "fin_Latn") if label in labels]
            mean = sum(s["lm_loss"] * s["tokens"] for s in high) / sum(s["tokens"] for s in high)
            assert tiers["high"]["lm_loss"] == pytest.approx(mean)


def test_a_resumed_run_writes_the_rows_of_one_that_never_stopped(
    world: World, through: Finished, tmp_path: Path
) -> None:
    """Stopped at a save inside an interval of records, and inside one of labels."""
    stopped = launch(world, tmp_path, *INTERVALS, "training.exit_interval=10")
    assert stopped.train[-1]["iteration"] == 10
    resumed = launch(world, tmp_path, *INTERVALS)
    assert reproducible(resumed.records) == reproducible(through.records)


def test_a_run_without_groups_writes_all_but_them(world: World, single: Finished, tmp_path: Path) -> None:
    folder = world.folder / "data"
    plain = launch(
        world,
        tmp_path,
        f"data.train=[{{path: '{folder}/train/*_text_document'}}]",
        f"data.valid=[{{path: '{folder}/valid/*_text_document'}}]",
        "training.eval_at_start=true",
    )
    assert all("per_group" in record for record in single.records)
    expected = [{key: value for key, value in r.items() if key != "per_group"} for r in single.records]
    assert reproducible(plain.records) == reproducible(expected)
