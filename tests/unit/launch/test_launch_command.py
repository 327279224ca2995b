"""Command lines of the launchers."""

import base64
import json
import os
import socket
import sys
from pathlib import Path
from typing import get_args

import pytest

from megatron_ext.config.sections import LaunchConfig
from megatron_ext.errors import LaunchError, MissingDependencyError
from megatron_ext.launch import command
from megatron_ext.launch.command import LAUNCHERS, Job, build_command, with_free_port

WORKER = ("worker.module", "--flag", "x")


@pytest.fixture
def mpirun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that answers --version like an mpirun; the test writes its answer."""
    program = tmp_path / "mpirun"
    program.write_text('#!/bin/sh\ncat "$(dirname "$0")/answer"\n')
    program.chmod(0o755)
    monkeypatch.setattr(command, "_find_program", lambda _name, _purpose: str(program))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    return program


def test_torchrun() -> None:
    job = Job(
        WORKER,
        nnodes=4,
        nproc_per_node=8,
        node_rank=3,
        master_addr="n0",
        master_port=5,
        threads_per_process=2,
    )
    arguments, variables = build_command("torchrun", job)
    place = ["--nnodes=4", "--node-rank=3", "--master-addr=n0", "--master-port=5"]
    assert arguments[:4] == [sys.executable, "-m", "megatron_ext.cli.torchrun", "--nproc-per-node=8"]
    assert arguments[-len(WORKER) - 5 :] == [*place, "-m", *WORKER]
    assert variables["OMP_NUM_THREADS"] == "2"
    alone = build_command("torchrun", Job(WORKER, nproc_per_node=2)).arguments
    assert "--standalone" in alone
    assert not any(option.startswith("--master") for option in alone)


@pytest.mark.parametrize("root", [True, False])
def test_open_mpi_on_one_machine(mpirun: Path, monkeypatch: pytest.MonkeyPatch, root: bool) -> None:
    (mpirun.parent / "answer").write_text("mpirun (Open MPI) 5.0.11\n")
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    arguments, variables = build_command("mpirun", Job(WORKER, nproc_per_node=4))
    as_root = ["--allow-run-as-root"] if root else []
    flags = ["-np", "4", "--bind-to", "none", *as_root, "--oversubscribe"]
    assert arguments == [str(mpirun), *flags, sys.executable, "-m", *WORKER]
    assert variables == {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


def test_open_mpi_on_several_machines(mpirun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (mpirun.parent / "answer").write_text("mpirun (Open MPI) 4.1.6\n")
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    job = Job(WORKER, nnodes=2, nproc_per_node=8, hostfile="hosts", master_addr="n0", threads_per_process=1)
    arguments = build_command("mpirun", job).arguments
    forwarded = {arguments[place + 1] for place, flag in enumerate(arguments) if flag == "-x"}
    assert forwarded >= {"MASTER_ADDR", "MASTER_PORT", "NCCL_DEBUG", "OMP_NUM_THREADS"}
    assert "--oversubscribe" not in arguments
    assert arguments[arguments.index("--hostfile") :][:2] == ["--hostfile", "hosts"]
    assert ["--map-by", "ppr:8:node", sys.executable] == arguments[arguments.index("--map-by") :][:3]


def test_mpich_knows_none_of_open_mpi_s_flags(mpirun: Path) -> None:
    (mpirun.parent / "answer").write_text("HYDRA build details:\n    Version: 5.0.2\n")
    one = build_command("mpirun", Job(WORKER, nproc_per_node=4)).arguments
    assert one == [str(mpirun), "-n", "4", sys.executable, "-m", *WORKER]
    two = build_command("mpirun", Job(WORKER, 2, 4, master_addr="n0", hostfile="hosts")).arguments
    assert two == [str(mpirun), "-n", "8", "-ppn", "4", "-f", "hosts", sys.executable, "-m", *WORKER]


def test_an_unknown_mpirun_is_refused(mpirun: Path) -> None:
    (mpirun.parent / "answer").write_text("something else\n")
    with pytest.raises(LaunchError, match="neither Open MPI nor MPICH"):
        build_command("mpirun", Job(WORKER))
    mpirun.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(LaunchError, match="--version failed"):
        build_command("mpirun", Job(WORKER))


def test_several_nodes_need_hosts_and_a_meeting_point(mpirun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (mpirun.parent / "answer").write_text("mpirun (Open MPI) 5.0.11\n")
    with pytest.raises(LaunchError, match=r"needs launch\.hostfile=FILE"):
        build_command("mpirun", Job(WORKER, nnodes=2, master_addr="n0"))
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    build_command("mpirun", Job(WORKER, nnodes=2, master_addr="n0"))
    for launcher in ("torchrun", "mpirun"):
        with pytest.raises(LaunchError, match=r"launch\.master_addr=127\.0\.0\.1"):
            build_command(launcher, Job(WORKER, nnodes=2))


def test_deepspeed_on_each_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda _name: object())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    arguments = build_command("deepspeed", Job(WORKER, 2, 2, node_rank=1, master_addr="n0")).arguments
    (world,) = (text.partition("=")[2] for text in arguments if text.startswith("--world_info="))
    assert json.loads(base64.urlsafe_b64decode(world)) == {"node0": ["4", "5"], "node1": ["4", "5"]}
    assert "--node_rank=1" in arguments
    assert arguments[-5:] == ["--no_local_rank", "--module", *WORKER]


def test_deepspeed_with_a_hostfile_reaches_the_nodes_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda _name: object())
    monkeypatch.setattr(command, "_find_program", lambda name, _purpose: f"/bin/{name}")
    arguments = build_command("deepspeed", Job(WORKER, 2, 8, master_addr="n0", hostfile="hosts")).arguments
    assert arguments[:5] == ["/bin/deepspeed", "--quiet", "--hostfile=hosts", "--num_nodes=2", "--num_gpus=8"]


def test_missing_launchers_name_their_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command.shutil, "which", lambda _name, path: None)  # noqa: ARG005 (shutil's own name)
    monkeypatch.setattr(command.importlib.util, "find_spec", lambda _name: None)
    for launcher in ("mpirun", "deepspeed"):
        with pytest.raises(MissingDependencyError, match="make install-launchers"):
            build_command(launcher, Job(WORKER))


def test_no_launcher_needs_one_process_or_an_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "OMPI_COMM_WORLD_RANK", "MPI_LOCALRANKID", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    assert build_command("none", Job(WORKER)).arguments == [sys.executable, "-m", *WORKER]
    with pytest.raises(LaunchError, match="the run has 4 processes, the environment 1"):
        build_command("none", Job(WORKER, nproc_per_node=4))
    values = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert build_command("none", Job(WORKER, nproc_per_node=4)).variables == {}


def test_the_launchers_are_those_of_the_configuration() -> None:
    assert set(LAUNCHERS) == set(get_args(LaunchConfig.model_fields["launcher"].annotation))


def test_a_taken_port_is_replaced_on_one_node_only() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert with_free_port(Job(WORKER, master_port=port)).master_port != port
        assert with_free_port(Job(WORKER, nnodes=2, master_port=port)).master_port == port
    assert with_free_port(Job(WORKER, master_port=port)).master_port == port
