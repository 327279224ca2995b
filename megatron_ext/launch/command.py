"""Command lines that start a job's processes, one function for each launcher."""

import base64
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from megatron_ext.errors import LaunchError, MissingDependencyError
from megatron_ext.launch.environment import LOOPBACK, ProcessEnvironment

INSTALL = "make install-launchers"
SHUTDOWN_TIMEOUT_S = "600"
# Variables that processes on other nodes need too; Open MPI takes none along by itself.
FORWARDED_PREFIXES = ("MASTER_", "OMP_", "NCCL_", "GLOO_", "TORCH_", "CUDA_", "PYTHON", "HF_", "WANDB_")


@dataclass(frozen=True)
class Job:
    """What to start and where.

    Attributes:
        worker: a module and its arguments, for ``python -m``.
        nnodes: machines.
        nproc_per_node: processes on each.
        node_rank: this machine's number, for launchers that are started once per node.
        master_addr: host of node 0.
        master_port: port on it where processes meet.
        hostfile: list of machines, for launchers that reach the others themselves.
        threads_per_process: OMP_NUM_THREADS, or None to leave it.
    """

    worker: tuple[str, ...]
    nnodes: int = 1
    nproc_per_node: int = 1
    node_rank: int = 0
    master_addr: str = LOOPBACK
    master_port: int = 29500
    hostfile: str | None = None
    threads_per_process: int | None = None

    @property
    def world_size(self) -> int:
        """Processes altogether."""
        return self.nnodes * self.nproc_per_node

    @property
    def python(self) -> list[str]:
        """The worker's own command."""
        return [sys.executable, "-m", *self.worker]


class Command(NamedTuple):
    """A command line and the variables to add to its environment."""

    arguments: list[str]
    variables: dict[str, str]


def build_command(launcher: str, job: Job) -> Command:
    """How ``launcher``, a key of `LAUNCHERS`, starts ``job`` from this machine.

    Raises:
        LaunchError: if the job lacks something that this launcher needs.
        MissingDependencyError: if the launcher is not installed.
    """
    command = LAUNCHERS[launcher](job)
    if job.threads_per_process is not None:
        command.variables["OMP_NUM_THREADS"] = str(job.threads_per_process)
    return command


def with_free_port(job: Job) -> Job:
    """The job with another port if its own is taken; on several nodes the port is an agreement and stays."""
    if job.nnodes > 1 or _is_free(job.master_port):
        return job
    with socket.socket() as probe:
        probe.bind(("", 0))
        return replace(job, master_port=probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def _torchrun(job: Job) -> Command:
    _require_reachable_master(job)
    # SIGUSR1 too, Slurm's warning before the time limit: unhandled it would end torchrun and leave the workers.
    options = [
        f"--nproc-per-node={job.nproc_per_node}",
        "--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1",
    ]
    if job.nnodes > 1:
        options += [f"--nnodes={job.nnodes}", f"--node-rank={job.node_rank}"]
        options += [f"--master-addr={job.master_addr}", f"--master-port={job.master_port}"]
    else:
        options += ["--standalone"]  # on one node torchrun finds a free port itself
    # Torchrun's own 30 s between a signal and the end are too short to save a large model.
    patience = os.environ.get("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", SHUTDOWN_TIMEOUT_S)
    return Command(
        [sys.executable, "-m", "megatron_ext.cli.torchrun", *options, "-m", *job.worker],
        {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": patience},
    )


def _mpirun(job: Job) -> Command:
    mpirun = _find_program("mpirun", "start with MPI")
    if job.nnodes > 1 and job.hostfile is None and "SLURM_JOB_ID" not in os.environ:
        raise LaunchError(
            "mpirun on several nodes needs launch.hostfile=FILE, or a Slurm allocation to run in"
        )
    _require_reachable_master(job)
    variables = {"MASTER_ADDR": job.master_addr, "MASTER_PORT": str(job.master_port)}
    version = _version(mpirun)
    if "Open MPI" in version:
        options = _openmpi_options(job, variables)
    elif any(name in version for name in ("HYDRA", "MPICH", "Intel(R) MPI")):
        options = ["-n", str(job.world_size)]
        options += ["-ppn", str(job.nproc_per_node)] if job.nnodes > 1 else []
        options += ["-f", job.hostfile] if job.hostfile else []
    else:
        raise LaunchError(
            f"{mpirun} --version names neither Open MPI nor MPICH; use launch.launcher=torchrun"
        )
    return Command([mpirun, *options, *job.python], variables)


def _openmpi_options(job: Job, variables: dict[str, str]) -> list[str]:
    # Bound to one core, as is its default for few processes, a process would run all its threads there.
    options = ["-np", str(job.world_size), "--bind-to", "none"]
    options += ["--allow-run-as-root"] if os.geteuid() == 0 else []
    if job.hostfile:
        options += ["--hostfile", job.hostfile]
    if job.nnodes == 1:
        return [*options, "--oversubscribe"]  # else it refuses more processes than cores
    threads = {"OMP_NUM_THREADS"} if job.threads_per_process is not None else set()
    forwarded = (
        {name for name in os.environ if name.startswith(FORWARDED_PREFIXES)} | set(variables) | threads
    )
    for name in sorted(forwarded):
        options += ["-x", name]
    return [*options, "--map-by", f"ppr:{job.nproc_per_node}:node"]


def _deepspeed(job: Job) -> Command:
    if importlib.util.find_spec("deepspeed") is None:
        raise MissingDependencyError("deepspeed", "start with it", INSTALL)
    _require_reachable_master(job)
    address = [f"--master_addr={job.master_addr}", f"--master_port={job.master_port}"]
    worker = ["--no_local_rank", "--module", *job.worker]
    if job.hostfile:
        program = _find_program("deepspeed", "start with it")
        where = [
            f"--hostfile={job.hostfile}",
            f"--num_nodes={job.nnodes}",
            f"--num_gpus={job.nproc_per_node}",
        ]
        return Command([program, "--quiet", *where, *address, *worker], {})
    # The `deepspeed` command would start this very module, wait, and leave it behind when terminated itself.
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if len(devices) < job.nproc_per_node:
        devices = [str(index) for index in range(job.nproc_per_node)]
    world = {f"node{rank}": devices[: job.nproc_per_node] for rank in range(job.nnodes)}
    encoded = base64.urlsafe_b64encode(json.dumps(world).encode()).decode()
    node = [
        sys.executable,
        "-m",
        "deepspeed.launcher.launch",
        f"--world_info={encoded}",
        f"--node_rank={job.node_rank}",
    ]
    return Command([*node, "--quiet", *address, *worker], {})


def _none(job: Job) -> Command:
    present = ProcessEnvironment.detect().world_size
    if present != job.world_size:
        raise LaunchError(
            f"launch.launcher=none starts one process and leaves the others to srun or the like; the run has "
            f"{job.world_size} processes, the environment {present}; use launch.launcher=torchrun, or start "
            f"{job.world_size} tasks"
        )
    return Command(job.python, {} if job.world_size > 1 else {"MASTER_PORT": str(job.master_port)})


LAUNCHERS: dict[str, Callable[[Job], Command]] = {
    "torchrun": _torchrun,
    "mpirun": _mpirun,
    "deepspeed": _deepspeed,
    "none": _none,
}


def _require_reachable_master(job: Job) -> None:
    if job.nnodes > 1 and job.master_addr in (LOOPBACK, "localhost"):
        raise LaunchError(
            f"launch.master_addr={job.master_addr} means another machine on each of {job.nnodes} nodes; set "
            "it to the host of node 0"
        )


def _find_program(name: str, purpose: str) -> str:
    """The program beside this interpreter (an environment need not be activated), else on PATH."""
    beside = str(Path(sys.executable).parent)
    found = shutil.which(name, path=os.pathsep.join([beside, os.environ.get("PATH", os.defpath)]))
    if found is None:
        raise MissingDependencyError(name, purpose, INSTALL)
    return found


def _version(program: str) -> str:
    try:
        return subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=True, timeout=60
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise LaunchError(
            f"{program} --version failed ({error}); is the MPI installation complete?"
        ) from None
