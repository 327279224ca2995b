"""Ranks from the variables that each launcher sets (recorded from real ones), and from broken ones."""

import os
from pathlib import Path

import pytest

from megatron_ext.errors import LaunchError
from megatron_ext.launch.environment import ProcessEnvironment, end_mpich_job

MASTER = {"MASTER_ADDR": "node0", "MASTER_PORT": "29555"}
TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", **MASTER}
DEEPSPEED = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_SIZE": "4", **MASTER}
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "5",
    "OMPI_COMM_WORLD_SIZE": "8",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "4",
}
MPICH = {"PMI_RANK": "5", "PMI_SIZE": "8", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "4", "PMI_FD": "9"}
SLURM = {
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_STEP_NODELIST": "gpu[007-008],login1",
    "SLURM_JOB_ID": "1234567",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
}


@pytest.mark.parametrize(
    "variables",
    [
        TORCHRUN,
        DEEPSPEED,
        OPEN_MPI | MASTER,
        MPICH | MASTER,
        SLURM | MASTER,
        SLURM | TORCHRUN | {"SLURM_STEP_NUM_TASKS": "2"},  # torchrun as a Slurm task
        SLURM | MPICH | MASTER | {"SLURM_STEP_NUM_TASKS": "2"},  # MPICH starts its daemons through srun
    ],
)
def test_each_launcher(variables: dict[str, str]) -> None:
    assert ProcessEnvironment.detect(variables) == ProcessEnvironment(5, 8, 1, 4, "node0", 29555)


def test_no_launcher_is_one_process() -> None:
    assert ProcessEnvironment.detect({}) == ProcessEnvironment()
    assert ProcessEnvironment.detect({"MASTER_PORT": "4000"}).master_port == 4000


def test_a_slurm_batch_script_is_not_a_step() -> None:
    batch = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "1"}
    assert ProcessEnvironment.detect(batch).world_size == 1


def test_slurm_names_the_meeting_point_itself() -> None:
    found = ProcessEnvironment.detect(SLURM)
    assert (found.master_addr, found.master_port) == ("gpu007", 24567)


@pytest.mark.parametrize(
    ("nodelist", "host"),
    [("a1", "a1"), ("a1,b2", "a1"), ("n[3,5-7]", "n3"), ("r[0-1]n[04-09]-ib", "r0n04-ib"), ("x[9],y", "x9")],
)
def test_first_host_of_a_slurm_list(nodelist: str, host: str) -> None:
    assert ProcessEnvironment.detect(SLURM | {"SLURM_STEP_NODELIST": nodelist}).master_addr == host


def test_uneven_slurm_nodes() -> None:
    uneven = SLURM | {
        "SLURM_STEP_TASKS_PER_NODE": "2(x3),1,3",
        "SLURM_STEP_NUM_TASKS": "10",
        "SLURM_NODEID": "4",
    }
    assert ProcessEnvironment.detect(uneven).local_world_size == 3


def test_one_node_meets_on_loopback() -> None:
    local = OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "8"}
    assert ProcessEnvironment.detect(local).master_addr == "127.0.0.1"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "0"}, "the launcher set no WORLD_SIZE"),
        (TORCHRUN | {"RANK": "x"}, "RANK=x is not a number"),
        (TORCHRUN | {"RANK": "8"}, "rank 8 of 8"),
        (TORCHRUN | {"LOCAL_RANK": "-1"}, "local rank -1 of 4"),
        (OPEN_MPI, "MASTER_ADDR is not set, and the job has several nodes"),
        (MPICH | MASTER | {"MASTER_PORT": ""}, "MASTER_PORT= is not a number"),
        (SLURM | {"SLURM_STEP_TASKS_PER_NODE": "many"}, "not in Slurm's form"),
        (SLURM | {"SLURM_NODEID": "2"}, "SLURM_NODEID=2"),
    ],
)
def test_variables_that_make_no_sense(variables: dict[str, str], message: str) -> None:
    with pytest.raises(LaunchError, match=message.replace("(", r"\(")):
        ProcessEnvironment.detect(variables)


def test_export_sets_what_torch_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in TORCHRUN:
        monkeypatch.setenv(name, "to be replaced")
    ProcessEnvironment.detect(OPEN_MPI | MASTER).export()
    assert {name: os.environ[name] for name in TORCHRUN} == TORCHRUN


def test_ending_an_mpich_job_speaks_to_mpirun(tmp_path: Path) -> None:
    with (tmp_path / "socket").open("wb") as stream:
        end_mpich_job(2, MPICH | {"PMI_FD": str(stream.fileno())})
        end_mpich_job(2, OPEN_MPI)
    assert (tmp_path / "socket").read_bytes() == b"cmd=abort exitcode=2\n"
