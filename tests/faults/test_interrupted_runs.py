"""What befalls a run and its checkpoints: signals, kills, damaged files. Two processes, started by launch.sh."""

import re
from pathlib import Path

import pytest
from project_folder import Project, Stopped


def test_sigterm_to_the_launcher_saves_and_ends(stopped: Stopped) -> None:
    iterations = stopped.project.iterations()
    last = iterations[-1]
    assert stopped.exit_code == 128 + 15, stopped.output
    assert iterations == list(range(1, last + 1))
    assert last < 100
    assert f"stopped at iteration {last} of 100; the same launch.sh command resumes" in stopped.output
    assert "Traceback" not in stopped.output
    assert stopped.project.latest().name == f"iter_{last:07d}"
    checkpoints = stopped.project.folder / "run/checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == [f"iter_{last:07d}", "latest"]


def test_the_same_command_resumes_where_it_was_and_over_a_killed_save(with_checkpoint: Project) -> None:
    last = with_checkpoint.iterations()[-1]
    half = with_checkpoint.folder / "run/checkpoints/.iter_0000100.tmp"
    half.mkdir()
    (half / "__0_0.distcp").write_bytes(b"half")
    (half / "of_another_layout").write_bytes(b"half")
    # Steps that were made and logged after the last save are made again, and logged once.
    with (with_checkpoint.folder / "run/metrics.jsonl").open("a", encoding="utf-8") as metrics:
        metrics.write(f'{{"kind": "train", "iteration": {last + 1}}}\n')
    done = with_checkpoint.launch()
    assert done.returncode == 0, done.stderr
    assert f"iter_{last:07d}: {4 * last} samples consumed" in done.stderr
    assert with_checkpoint.iterations() == list(range(1, 101))
    assert not half.exists()
    assert with_checkpoint.latest().name == "iter_0000100"
    assert not (with_checkpoint.latest() / "of_another_layout").exists()


def test_a_run_that_diverges_ends_before_it_saves(project: Project) -> None:
    done = project.launch("optimizer.lr=1e20", "optimizer.clip_grad=0", "training.train_iters=9")
    assert done.returncode == 2, done.stderr
    assert re.search(r"error: the loss is (nan|inf) at iteration \d: training has diverged", done.stderr)
    assert "Traceback" not in done.stderr
    assert not (project.folder / "run/checkpoints").exists()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def overwrite_the_middle(path: Path) -> None:
    whole = path.read_bytes()
    third = len(whole) // 3
    path.write_bytes(whole[:third] + bytes(third) + whole[2 * third :])


DAMAGES = {
    "missing": (Path.unlink, r"__1_0\.distcp: missing; the checkpoint is incomplete"),
    "overwritten": (
        overwrite_the_middle,
        r"damaged, its tensors cannot be read \(\w+ on rank \d\); start from another checkpoint",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_one_message_from_all_processes(
    with_checkpoint: Project, damage: str
) -> None:
    change, message = DAMAGES[damage]
    change(with_checkpoint.latest() / "__1_0.distcp")
    before = with_checkpoint.files()
    done = with_checkpoint.launch()
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if "error: " in line]
    assert len(errors) == 1
    folder = with_checkpoint.latest().relative_to(with_checkpoint.folder)
    assert re.fullmatch(rf"error: {folder}[/:] ?{message}", errors[0])
    assert "Traceback" not in done.stderr
    assert with_checkpoint.files() == before | {"run/run.yaml": with_checkpoint.files()["run/run.yaml"]}


def test_a_checkpoint_that_is_cut_short_is_not_exported(with_checkpoint: Project) -> None:
    cut(with_checkpoint.latest() / "__1_0.distcp")
    before = with_checkpoint.files()
    done = with_checkpoint.tool(
        "convert_checkpoint.py", "to-hf", "--checkpoint", "run/checkpoints", "--output", "hf"
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(
        r"^error: \S+/__1_0\.distcp: 5,000 bytes, but an entry ends at [\d,]+$", done.stderr, re.M
    )
    assert "Traceback" not in done.stderr
    assert with_checkpoint.files() == before
