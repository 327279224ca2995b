"""The real launchers start real processes, which meet, add up their ranks, and pass on their exit code."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from megatron_ext.launch.command import Job, build_command, with_free_port

BIN = str(Path(sys.executable).parent)
HAS_MPIRUN = shutil.which("mpirun", path=f"{BIN}{os.pathsep}{os.environ['PATH']}") is not None
HAS_DEEPSPEED = importlib.util.find_spec("deepspeed") is not None
optional = pytest.mark.launchers
EACH_LAUNCHER = pytest.mark.parametrize(
    "launcher",
    [
        "torchrun",
        pytest.param("mpirun", marks=[optional, pytest.mark.skipif(not HAS_MPIRUN, reason="no mpirun")]),
        pytest.param(
            "deepspeed", marks=[optional, pytest.mark.skipif(not HAS_DEEPSPEED, reason="no deepspeed")]
        ),
    ],
)
ADD_RANKS = """\
import sys
import torch
import torch.distributed as dist
from megatron_ext.launch.environment import ProcessEnvironment

if __name__ == "__main__":
    environment = ProcessEnvironment.detect()
    environment.export()
    dist.init_process_group("gloo")
    total = torch.tensor([environment.rank + 1])
    dist.all_reduce(total)
    sys.stdout.write(f"of {environment.world_size}: {int(total)}; {' '.join(sys.argv[1:])}\\n")  # in one piece
    dist.destroy_process_group()
"""
REFUSE = """\
import sys, time
from megatron_ext.launch.environment import ProcessEnvironment

if __name__ == "__main__":
    if ProcessEnvironment.detect().rank == 0:
        print("error: run.yaml:3: wrong", file=sys.stderr, flush=True)
        sys.exit(int(sys.argv[1]))
    time.sleep(60)
"""


def start(launcher: str, folder: Path, source: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "started_worker.py").write_text(source)
    job = Job(("started_worker", *arguments), nproc_per_node=2, threads_per_process=1, master_port=29641)
    command, variables = build_command(launcher, with_free_port(job))
    inherited = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    search = os.pathsep.join([str(folder), *filter(None, sys.path)])
    environment = {**inherited, **variables, "PYTHONPATH": search}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


@EACH_LAUNCHER
def test_processes_meet(launcher: str, tmp_path: Path) -> None:
    # --run-config begins like torchrun's own --run-path
    done = start(launcher, tmp_path, ADD_RANKS, "--run-config", "x.yaml")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("of 2: 3; --run-config x.yaml") == 2


@EACH_LAUNCHER
def test_a_wrong_input_is_exit_code_2_without_a_traceback(launcher: str, tmp_path: Path) -> None:
    done = start(launcher, tmp_path, REFUSE, "2")
    assert done.returncode == 2, done.stderr
    assert "error: run.yaml:3: wrong" in done.stderr
    assert "Traceback" not in done.stderr


def test_torchrun_shows_any_other_failure(tmp_path: Path) -> None:
    done = start("torchrun", tmp_path, REFUSE, "3")
    assert done.returncode == 1
    assert "exitcode  : 3" in done.stderr
