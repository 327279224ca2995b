"""fp16 with loss scaling: near fp32, and what overflows is skipped, counted, and survived."""

import shutil
from pathlib import Path

import numpy as np
from comparable_runs import Finished, World, launch

FP16 = "training.precision=fp16"
DYNAMIC = (
    FP16,
    "optimizer.initial_loss_scale=65536",
    "optimizer.hysteresis=1",
    "optimizer.loss_scale_window=8",
)


def test_a_fixed_scale_follows_fp32(world: World, single: Finished, tmp_path: Path) -> None:
    run = launch(world, tmp_path, FP16, "optimizer.loss_scale=64")
    assert run.column("skipped_iterations") == [0] * len(single.train)
    np.testing.assert_allclose(run.column("lm_loss"), single.column("lm_loss"), rtol=0, atol=1e-2)
    np.testing.assert_allclose(run.column("grad_norm"), single.column("grad_norm"), rtol=5e-2)


def test_overflow_is_skipped_counted_and_survived(world: World, single: Finished, tmp_path: Path) -> None:
    """The scale starts far too high and halves until gradients fit; stopped and resumed, bit for bit the same."""
    sharded = "parallel.use_distributed_optimizer=true"
    run = launch(world, tmp_path / "through", *DYNAMIC, sharded)
    skipped = np.array(run.column("skipped_iterations"))
    taken = np.diff(skipped, prepend=0) == 0
    first = int(np.argmax(taken))
    assert 2 < first < 14
    assert list(skipped[:first]) == list(range(1, first + 1))
    assert all(row["grad_norm"] is None for row in run.train[:first])
    # The schedule waits: its rates are those of the fp32 run, each used until it has changed the weights.
    planned = single.column("learning_rate")
    updates_before = np.arange(len(taken)) - (skipped - ~taken)
    assert run.column("learning_rate") == [planned[done] for done in updates_before]
    assert run.column("lm_loss")[-1] < run.column("lm_loss")[0] - 0.5

    launch(world, tmp_path / "stopped", *DYNAMIC, sharded, "training.exit_interval=10")
    shutil.copytree(tmp_path / "stopped", tmp_path / "resumed")
    resumed = launch(world, tmp_path / "resumed", *DYNAMIC, sharded)
    for name in ("lm_loss", "grad_norm", "learning_rate", "skipped_iterations"):
        assert resumed.column(name) == run.column(name)
