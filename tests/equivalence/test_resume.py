"""Stop and resume: the same bits as a run that never stopped, and the same losses on another layout."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from comparable_runs import TRAIN_ITERS, Finished, World, launch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from megatron_ext.checkpoint.store import CheckpointStore
from megatron_ext.data.position import DataPosition

TP2_PP2 = ("parallel.tensor_model_parallel_size=2", "parallel.pipeline_model_parallel_size=2")
COMPARED = (
    "iteration",
    "consumed_samples",
    "consumed_tokens",
    "lm_loss",
    "grad_norm",
    "learning_rate",
    "per_group",
)


def rows(run: Finished) -> list[tuple[Any, ...]]:
    return [tuple(record[name] for name in COMPARED) for record in run.train]


@pytest.fixture(scope="module")
def stopped(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four processes that stopped at step 10; its folder is copied, not continued."""
    folder = tmp_path_factory.mktemp("stopped")
    run = launch(world, folder, *TP2_PP2, "training.exit_interval=10", processes=4)
    assert [record["iteration"] for record in run.train] == list(range(1, 11))
    return folder


def test_a_checkpoint_keeps_the_counters_of_the_consumed_position(stopped: Path) -> None:
    """Ten batches of 8, whatever was read ahead: each set's share of them by its tokens, to a sample."""
    position = DataPosition.read(CheckpointStore.resolve(stopped / "run/checkpoints"))
    assert position is not None
    assert position.consumed_samples == 80
    assert len(position.drawn) == 3
    expected = 80 * np.array(position.blend.stages[0].weights)
    assert np.abs(np.array(position.drawn) - expected).max() < 1


def test_a_resumed_run_equals_one_that_never_stopped(world: World, stopped: Path, tmp_path: Path) -> None:
    shutil.copytree(stopped, tmp_path / "resumed")
    resumed = launch(world, tmp_path / "resumed", *TP2_PP2, processes=4)
    through = launch(world, tmp_path / "through", *TP2_PP2, processes=4)
    assert rows(resumed) == rows(through)
    for scores in ("per_dataset", "per_group"):
        assert resumed.validation[-1][scores] == through.validation[-1][scores]
    ours, theirs = _tensors(resumed.folder), _tensors(through.folder)
    assert ours.keys() == theirs.keys()
    assert any(key.startswith("optimizer.") for key in ours)
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []


def test_a_run_resumes_on_another_layout(
    world: World, single: Finished, stopped: Path, tmp_path: Path
) -> None:
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    resumed = launch(world, tmp_path, "training.micro_batch_size=1", processes=2)
    assert [record["consumed_samples"] for record in resumed.train] == [
        8 * n for n in range(1, TRAIN_ITERS + 1)
    ]
    np.testing.assert_allclose(resumed.column("lm_loss"), single.column("lm_loss"), rtol=0, atol=1e-5)


def test_a_run_resumes_inside_its_batch_ramp_and_its_re_warming(world: World, tmp_path: Path) -> None:
    """Batches of 4, then 8, then 12 by the samples consumed, at a rate that rises again from step 3 to 6.

    Stopped after the fourth step, on another layout after.
    """
    ramp = (
        "training.rampup_batch_size=[4,4,24]", "training.global_batch_size=12", "training.train_iters=8",
        "optimizer.lr_warmup_iters=1", "optimizer.rewarm_from_iters=2", "optimizer.rewarm_iters=4",
    )  # fmt: skip
    through = launch(world, tmp_path / "through", *ramp)
    launch(world, tmp_path / "resumed", *ramp, "training.exit_interval=4")
    resumed = launch(world, tmp_path / "resumed", *ramp, processes=2)
    rates = through.column("learning_rate")
    assert rates[0] > rates[1]
    assert rates[1:6] == sorted(rates[1:6])
    assert rates[5] > rates[6] > rates[7]
    sizes = np.diff([0.0, *through.column("consumed_samples")])
    assert list(sizes) == [4, 4, 4, 8, 8, 12, 12, 12]
    assert resumed.column("consumed_samples") == through.column("consumed_samples")
    assert resumed.column("learning_rate") == through.column("learning_rate")
    np.testing.assert_allclose(resumed.column("lm_loss"), through.column("lm_loss"), rtol=0, atol=1e-5)


def _tensors(run_folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the latest checkpoint, optimizer state included, read by torch itself."""
    plain = run_folder / "plain.pt"
    dcp_to_torch_save(CheckpointStore.resolve(run_folder / "checkpoints"), plain)
    return {key: value for key, value in torch.load(plain).items() if isinstance(value, torch.Tensor)}
