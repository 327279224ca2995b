"""Where a run stands, and which checkpoint it starts from."""

from pathlib import Path
from typing import Any

import pytest

from megatron_ext.checkpoint.manifest import Manifest
from megatron_ext.checkpoint.store import CheckpointStore
from megatron_ext.config.sections import RunConfig
from megatron_ext.errors import CheckpointError
from megatron_ext.train.start import find_start
from megatron_ext.train.state import TrainState

SHAPE = {
    "num_layers": 2, "hidden_size": 16, "ffn_hidden_size": 32, "num_attention_heads": 2, "vocab_size": 300,
}  # fmt: skip


def run_config(folder: Path, load: str | None = None, **shape: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "x",
            "run_dir": str(folder / "run"),
            "model": {**SHAPE, **shape},
            "tokenizer": {"type": "ByteTokenizer"},
            "data": {"train": [{"path": "x"}]},
            "training": {"micro_batch_size": 1, "global_batch_size": 1, "seq_length": 8, "train_iters": 9},
            "optimizer": {"lr": 0.1},
            "checkpoint": {"load": load},
        }
    )


def put_checkpoint(root: Path, iteration: int, *, has_optimizer: bool = True, **changes: Any) -> Path:
    store = CheckpointStore(root)
    temporary = store.begin(iteration)
    manifest = Manifest(
        model=run_config(root).model,
        iteration=iteration,
        consumed_samples=4 * iteration,
        consumed_tokens=32 * iteration,
        has_optimizer=has_optimizer,
        distributed_optimizer=False if has_optimizer else None,
        params_dtype="bf16",
    )
    manifest.model_copy(update=changes).write(temporary)
    return store.commit(temporary, iteration)


def test_a_step_advances_every_count() -> None:
    assert TrainState(3, 12, 96).advance(4, 32) == TrainState(4, 16, 128)
    assert TrainState(3, 12, 96, 1).advance(4, 32, skipped=True) == TrainState(4, 16, 128, 2)
    assert TrainState(3, 12, 96, 1).next_update == 3
    assert TrainState() == TrainState(0, 0, 0)


def test_a_run_starts_from_nothing_then_from_load_then_from_its_own_latest(tmp_path: Path) -> None:
    assert find_start(run_config(tmp_path)) is None
    loaded = put_checkpoint(tmp_path / "other", 7, has_optimizer=False)
    config = run_config(tmp_path, load=str(tmp_path / "other"))
    start = find_start(config)
    assert start is not None
    assert (start.folder, start.resumes) == (loaded, False)
    put_checkpoint(tmp_path / "run/checkpoints", 1)
    own = put_checkpoint(tmp_path / "run/checkpoints", 2)
    start = find_start(config)
    assert start is not None
    assert (start.folder, start.resumes, start.manifest.consumed_samples) == (own, True, 8)


def test_what_a_killed_save_left_is_no_checkpoint(tmp_path: Path) -> None:
    own = put_checkpoint(tmp_path / "run/checkpoints", 1)
    (tmp_path / "run/checkpoints/.iter_0000002.tmp").mkdir()
    start = find_start(run_config(tmp_path))
    assert start is not None
    assert start.folder == own


def test_every_difference_in_shape_is_listed(tmp_path: Path) -> None:
    put_checkpoint(tmp_path / "run/checkpoints", 1)
    other = {"num_layers": 4, "num_query_groups": 1, "rotary_base": 5e5, "max_position_embeddings": 8192}
    with pytest.raises(CheckpointError) as caught:
        find_start(run_config(tmp_path, **other))
    first, *listed = str(caught.value).splitlines()
    assert first.endswith("iter_0000001 holds another model than this run describes:")
    assert listed == [
        "  model.num_layers is 4 in the run and 2 in the checkpoint",
        "  model.query_groups is 1 in the run and 2 in the checkpoint",
        "  model.rotary_base is 500000.0 in the run and 10000.0 in the checkpoint",
    ]  # max_position_embeddings changes no tensor: longer rows may follow


def test_a_default_and_its_value_in_words_are_the_same_shape(tmp_path: Path) -> None:
    put_checkpoint(tmp_path / "run/checkpoints", 1)
    assert find_start(run_config(tmp_path, num_query_groups=2, kv_channels=8)) is not None


def test_a_run_cannot_resume_without_optimizer_state(tmp_path: Path) -> None:
    put_checkpoint(tmp_path / "run/checkpoints", 0, has_optimizer=False)
    with pytest.raises(CheckpointError, match=r"no optimizer state.*name it under checkpoint\.load"):
        find_start(run_config(tmp_path))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"distributed_optimizer": True}, "was saved with parallel.use_distributed_optimizer=true"),
        ({"params_dtype": "fp32"}, "was saved with training.precision=fp32 and not bf16"),
    ],
)
def test_a_run_cannot_resume_with_optimizer_state_of_another_form(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    put_checkpoint(tmp_path / "run/checkpoints", 1, **changes)
    with pytest.raises(CheckpointError, match=reason):
        find_start(run_config(tmp_path))
    # Its weights are still good to start from.
    other = run_config(tmp_path, load=str(tmp_path / "run/checkpoints")).model_copy(
        update={"run_dir": "elsewhere"}
    )
    assert find_start(other) is not None
