"""`launch`: from the command line to the launcher's own, and the dry run."""

import subprocess
import sys
from pathlib import Path

import pytest

from megatron_ext.cli import launch
from megatron_ext.cli.main import run_verb
from megatron_ext.config.dump import load_resolved
from megatron_ext.config.load import load_run_config
from megatron_ext.config.sections import RunConfig
from megatron_ext.errors import ConfigError

ROOT = Path(__file__).parents[3]
RUNS = ROOT / "configs/runs"


@pytest.fixture
def quickstart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "check_inputs", lambda _config: None)  # there are none in this folder
    return load_run_config([RUNS / "quickstart.yaml"])


def test_prepare_saves_the_run_that_the_worker_reads(quickstart: RunConfig) -> None:
    arguments, variables = launch.prepare(quickstart)
    train = ["-m", "megatron_ext.cli.main", "train", "--run-config", "runs/quickstart/run.yaml"]
    assert arguments[-5:] == train
    assert "--nproc-per-node=4" in arguments
    assert variables["OMP_NUM_THREADS"] == "1"
    assert load_resolved(Path("runs/quickstart/run.yaml")) == quickstart


@pytest.mark.usefixtures("quickstart")
def test_other_nodes_do_not_overwrite_the_first_one_s_file() -> None:
    overrides = ["launch.nnodes=2", "launch.nproc_per_node=2", "launch.node_rank=1", "launch.master_addr=n0"]
    launch.prepare(load_run_config([RUNS / "quickstart.yaml"], overrides))
    assert [path.name for path in Path("runs/quickstart").iterdir()] == ["run.node1.yaml"]


def test_a_folder_that_cannot_be_written(quickstart: RunConfig) -> None:
    Path("runs").write_text("a file")
    with pytest.raises(ConfigError, match="run_dir=runs/quickstart: cannot be written"):
        launch.prepare(quickstart)


@pytest.mark.usefixtures("quickstart")
def test_nothing_is_written_when_the_launcher_cannot_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_verb("launch", [str(RUNS / "quickstart.yaml"), "--launcher", "none"]) == 2
    assert "launch.launcher=none starts one process" in capsys.readouterr().err
    assert not Path("runs").exists()


@pytest.mark.usefixtures("quickstart")
def test_flags_are_overrides(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["parallel.pipeline_model_parallel_size=1", "--nproc-per-node", "3", "--dry-run", "name=x"]
    assert run_verb("launch", [str(RUNS / "quickstart.yaml"), *arguments]) == 2
    assert capsys.readouterr().err.startswith(
        "error: override launch.nproc_per_node=3: launch.nnodes × nproc_per_node = 1 × 3 processes is not"
    )


def test_the_plan_of_256_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_verb("launch", [str(RUNS / "llama2_7b_256gpu.yaml"), "--dry-run"]) == 0
    output = capsys.readouterr().out
    for expected in (
        "16,777,216",
        "12,000",
        "201,326,592,000",
        "6,738,415,616",
        "data 256",
        "80 GB and more",
    ):
        assert expected in output


def test_the_plan_counts_ranks_as_megatron_does(capsys: pytest.CaptureFixture[str]) -> None:
    layout = ROOT / "configs/parallel/tp8_pp4.yaml"
    model = ROOT / "configs/models/llama2_70b.yaml"
    assert (
        run_verb("launch", [str(RUNS / "llama2_7b_256gpu.yaml"), str(model), str(layout), "--dry-run"]) == 0
    )
    rows = [[cell.strip() for cell in line.split("│")] for line in capsys.readouterr().out.splitlines()]
    stages = [row[1:4] for row in rows if len(row) == 8 and row[1].isdigit()]
    ranges = [
        ("0 to 63", "0 to 19"),
        ("64 to 127", "20 to 39"),
        ("128 to 191", "40 to 59"),
        ("192 to 255", "60 to 79"),
    ]
    assert stages == [[str(stage), *ends] for stage, ends in enumerate(ranges)]
    groups = {row[1]: row[2:6] for row in rows if len(row) == 7}
    assert groups["tensor"] == ["32", "8", "every layer", "0, 1, 2, 3, 4, 5, 6, 7"]
    assert groups["data"] == ["32", "8", "every batch", "0, 8, 16, 24, 32, 40, 48, 56"]
    assert groups["pipeline"] == ["64", "4", "the layers", "0, 64, 128, 192"]


def test_a_model_that_no_card_holds(capsys: pytest.CaptureFixture[str]) -> None:
    model = str(ROOT / "configs/models/llama2_70b.yaml")
    assert run_verb("launch", [str(RUNS / "llama2_7b_256gpu.yaml"), model, "--dry-run"]) == 0
    assert "none of one GPU" in capsys.readouterr().out


def test_launch_sh_works_from_any_folder_and_without_torch(tmp_path: Path) -> None:
    config = str(RUNS / "quickstart.yaml")
    done = subprocess.run(
        [str(ROOT / "launch.sh"), config, "training.global_batch_size=9", "--dry-run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: override training.global_batch_size=9: training.global_batch_size=9 is not a multiple of "
        "micro_batch_size × data_parallel_size = 8 × 1; nearest: 8, 16\n"
    )
    assert list(tmp_path.iterdir()) == []
    script = "import sys, megatron_ext.cli.launch; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "False\n"
