"""Starting from a Hugging Face folder is starting from its import; what a run exports is what to-hf makes of it."""

import dataclasses
from pathlib import Path

import pytest
from comparable_runs import Finished, World, launch

from megatron_ext.convert.to_hf import export_hf

ITERS = 2
LAYOUT = [
    "parallel.tensor_model_parallel_size=2",
    "parallel.pipeline_model_parallel_size=2",
    "parallel.virtual_pipeline_model_parallel_size=2",
]
COMMON = [f"training.train_iters={ITERS}", "optimizer.lr_warmup_iters=1"]


@pytest.fixture(scope="module")
def from_hf(world: World) -> World:
    """The same world, started without an import."""
    config = {**world.config, "checkpoint": {"load_hf": str(world.hf), "export_hf": True}}
    return dataclasses.replace(world, config=config)


@pytest.fixture(scope="module")
def reference(world: World, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One process that loads the import."""
    return launch(world, tmp_path_factory.mktemp("reference"), *COMMON)


def test_losses_of_four_processes_are_those_of_the_import(
    from_hf: World, reference: Finished, tmp_path: Path
) -> None:
    run = launch(from_hf, tmp_path, *COMMON, *LAYOUT, processes=4)
    assert run.column("lm_loss") == pytest.approx(reference.column("lm_loss"), rel=1e-5)
    assert run.column("grad_norm") == pytest.approx(reference.column("grad_norm"), rel=1e-4)
    _assert_exported_as_by_command(run.folder, tmp_path)


def test_one_process_equals_the_import_exactly_and_a_resumed_run_needs_no_folder(
    from_hf: World, reference: Finished, tmp_path: Path
) -> None:
    gone = tmp_path / "hf"
    gone.symlink_to(from_hf.hf)
    overrides = [*COMMON, f"checkpoint.load_hf={gone}"]
    first = launch(from_hf, tmp_path, *overrides, "training.exit_interval=1")
    assert not (first.folder / "hf").exists()  # it is not complete
    gone.unlink()
    run = launch(from_hf, tmp_path, *overrides)
    assert run.column("lm_loss") == reference.column("lm_loss")
    _assert_exported_as_by_command(run.folder, tmp_path)


def _assert_exported_as_by_command(run_dir: Path, folder: Path) -> None:
    export_hf(run_dir / "checkpoints", folder / "by command")
    names = sorted(path.name for path in (folder / "by command").iterdir())
    assert sorted(path.name for path in (run_dir / "hf").iterdir()) == names
    assert {"config.json", "generation_config.json", "model.safetensors"} <= set(names)
    for name in names:
        assert (run_dir / "hf" / name).read_bytes() == (folder / "by command" / name).read_bytes(), name
