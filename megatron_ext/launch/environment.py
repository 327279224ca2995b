"""Which process of the job this one is, whatever started it."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from megatron_ext.errors import LaunchError

LOOPBACK = "127.0.0.1"
DEFAULT_MASTER_PORT = 29500


@dataclass(frozen=True)
class ProcessEnvironment:
    """Place of one process among all of a job.

    Attributes:
        rank: number among all processes.
        world_size: all processes.
        local_rank: number among the processes of this node.
        local_world_size: processes of this node.
        master_addr: host of rank 0, where processes meet.
        master_port: its port.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    master_addr: str = LOOPBACK
    master_port: int = DEFAULT_MASTER_PORT

    def __post_init__(self) -> None:
        """Refuse numbers that no launcher would set.

        Raises:
            LaunchError: if a rank does not lie below its size.
        """
        if not (0 <= self.rank < self.world_size and 0 <= self.local_rank < self.local_world_size):
            raise LaunchError(
                f"the launcher's variables make no sense: rank {self.rank} of {self.world_size}, local rank "
                f"{self.local_rank} of {self.local_world_size}"
            )

    @classmethod
    def detect(cls, variables: Mapping[str, str] = os.environ) -> "ProcessEnvironment":
        """Read the variables of torchrun, deepspeed, Open MPI, MPICH or Slurm; without any, one process.

        The order matters, because launchers run inside each other: torchrun in a Slurm step, MPICH's
        processes below Slurm's.

        Raises:
            LaunchError: if a variable is missing or no number, or the host of rank 0 is unknown.
        """
        # In a batch script outside srun, SLURM_PROCID is there as well; SLURM_STEP_NUM_TASKS is not.
        readers = {
            "RANK": _torch,
            "OMPI_COMM_WORLD_RANK": _openmpi,
            "MPI_LOCALRANKID": _mpich,
            "SLURM_STEP_NUM_TASKS": _slurm,
        }
        for variable, read in readers.items():
            if variable in variables:
                return read(_Variables(variables))
        return cls(master_port=_Variables(variables).integer("MASTER_PORT", DEFAULT_MASTER_PORT))

    def export(self) -> None:
        """Set the variables that ``torch.distributed`` reads with ``env://``, in this process."""
        os.environ.update(
            RANK=str(self.rank),
            WORLD_SIZE=str(self.world_size),
            LOCAL_RANK=str(self.local_rank),
            LOCAL_WORLD_SIZE=str(self.local_world_size),
            MASTER_ADDR=self.master_addr,
            MASTER_PORT=str(self.master_port),
        )


def end_mpich_job(exit_code: int, variables: Mapping[str, str] = os.environ) -> None:
    """Ask MPICH's mpirun to end every process of this job; without it, nothing happens.

    Other launchers end the rest when one process fails. MPICH waits, even if the others wait for this one.
    The words are those of PMI-1, which mpirun speaks with each process over a socket.
    """
    if "MPI_LOCALRANKID" in variables and "PMI_FD" in variables:
        os.write(int(variables["PMI_FD"]), f"cmd=abort exitcode={exit_code}\n".encode())


class _Variables:
    def __init__(self, variables: Mapping[str, str]) -> None:
        self.variables = variables

    def text(self, *names: str) -> str:
        for name in names:
            if name in self.variables:
                return self.variables[name]
        raise LaunchError(f"the launcher set no {' nor '.join(names)}; start with launch.sh, or set it")

    def integer(self, name: str, default: int | None = None) -> int:
        if default is not None and name not in self.variables:
            return default
        try:
            return int(self.text(name))
        except ValueError:
            raise LaunchError(f"{name}={self.variables[name]} is not a number") from None

    def master(self, world_size: int, local_world_size: int, host: str | None = None) -> tuple[str, int]:
        port = self.integer("MASTER_PORT", DEFAULT_MASTER_PORT)
        if "MASTER_ADDR" in self.variables:
            return self.variables["MASTER_ADDR"], port
        if world_size == local_world_size:
            return LOOPBACK, port
        if host is None:
            raise LaunchError(
                "MASTER_ADDR is not set, and the job has several nodes: set it to the host of rank 0"
            )
        return host, port


def _torch(variables: _Variables) -> ProcessEnvironment:
    local_size_name = (
        "LOCAL_WORLD_SIZE" if "LOCAL_WORLD_SIZE" in variables.variables else "LOCAL_SIZE"
    )  # deepspeed's
    world_size = variables.integer("WORLD_SIZE")
    local_world_size = variables.integer(local_size_name)
    return ProcessEnvironment(
        variables.integer("RANK"),
        world_size,
        variables.integer("LOCAL_RANK"),
        local_world_size,
        *variables.master(world_size, local_world_size),
    )


def _openmpi(variables: _Variables) -> ProcessEnvironment:
    world_size = variables.integer("OMPI_COMM_WORLD_SIZE")
    local_world_size = variables.integer("OMPI_COMM_WORLD_LOCAL_SIZE")
    return ProcessEnvironment(
        variables.integer("OMPI_COMM_WORLD_RANK"),
        world_size,
        variables.integer("OMPI_COMM_WORLD_LOCAL_RANK"),
        local_world_size,
        *variables.master(world_size, local_world_size),
    )


def _mpich(variables: _Variables) -> ProcessEnvironment:
    world_size = variables.integer("PMI_SIZE")
    local_world_size = variables.integer("MPI_LOCALNRANKS")
    return ProcessEnvironment(
        variables.integer("PMI_RANK"),
        world_size,
        variables.integer("MPI_LOCALRANKID"),
        local_world_size,
        *variables.master(world_size, local_world_size),
    )


def _slurm(variables: _Variables) -> ProcessEnvironment:
    world_size = variables.integer("SLURM_STEP_NUM_TASKS")
    tasks = variables.text("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE")
    local_world_size = _tasks_of_node(tasks, variables.integer("SLURM_NODEID"))
    host = _first_host(variables.text("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"))
    address, port = variables.master(world_size, local_world_size, host)
    if "MASTER_PORT" not in variables.variables:
        port = (
            20000 + variables.integer("SLURM_JOB_ID") % 10000
        )  # the same in every task, another in every job
    return ProcessEnvironment(
        variables.integer("SLURM_PROCID"),
        world_size,
        variables.integer("SLURM_LOCALID"),
        local_world_size,
        address,
        port,
    )


def _first_host(nodelist: str) -> str:
    """``node[03-05,9],login1`` → ``node03``."""
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", nodelist).split(",")[0]


def _tasks_of_node(tasks_per_node: str, node: int) -> int:
    """Tasks of the node with that number, in Slurm's short form: ``8(x2),4`` is 8, 8 and 4."""
    counts: list[int] = []
    for part in tasks_per_node.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if match is None:
            raise LaunchError(
                f"SLURM_STEP_TASKS_PER_NODE={tasks_per_node} is not in Slurm's form, such as 8(x2),4"
            )
        counts += [int(match[1])] * int(match[2] or 1)
    if node >= len(counts):
        raise LaunchError(
            f"SLURM_NODEID={node}, but SLURM_STEP_TASKS_PER_NODE={tasks_per_node} lists {len(counts)} nodes"
        )
    return counts[node]
