"""Training with attention inside documents: the same run with any back end, recomputed, and on any layout."""

from pathlib import Path

import numpy as np
import pytest
from comparable_runs import Finished, World, launch

FEW_STEPS = ("training.train_iters=2", "training.global_batch_size=64", "optimizer.lr_warmup_iters=0")
MASKED = ("data.reset_attention_mask=true", *FEW_STEPS)
OTHERS = {
    "written out": (1, ["kernels.attention_backend=torch"]),
    "recomputed, other micro-batches": (
        1,
        ["parallel.recompute_granularity=full", "training.micro_batch_size=8"],
    ),
    "TP2 SP": (2, ["parallel.tensor_model_parallel_size=2", "parallel.sequence_parallel=true"]),
}


@pytest.fixture(scope="module")
def masked(world: World, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return launch(world, tmp_path_factory.mktemp("masked"), *MASKED)


def test_masking_matters(world: World, masked: Finished, tmp_path: Path) -> None:
    whole_rows = launch(world, tmp_path, *FEW_STEPS)
    assert abs(masked.column("lm_loss")[0] - whole_rows.column("lm_loss")[0]) > 1e-4


@pytest.mark.parametrize("name", OTHERS)
def test_the_same_run(world: World, masked: Finished, tmp_path: Path, name: str) -> None:
    processes, overrides = OTHERS[name]
    run = launch(world, tmp_path, *MASKED, *overrides, processes=processes)
    np.testing.assert_allclose(run.column("lm_loss"), masked.column("lm_loss"), rtol=0, atol=1e-5)
    np.testing.assert_allclose(run.column("grad_norm"), masked.column("grad_norm"), rtol=1e-4)
