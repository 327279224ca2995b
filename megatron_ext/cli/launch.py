"""Start a training run from YAML files.

Files are merged left to right (each over the files that it names under `defaults:`), then come the overrides.
The result is checked, written to <run_dir>/run.yaml, and trained by as many processes as `launch:` says.
Paths inside YAML files are relative to the folder that you are in, those under `defaults:` to their file.

  ./launch.sh configs/runs/quickstart.yaml
  ./launch.sh configs/runs/quickstart.yaml training.train_iters=20 optimizer.lr=1e-3
  ./launch.sh configs/runs/llama2_7b_256gpu.yaml --dry-run

On several nodes, torchrun and deepspeed are started once on each, with launch.nnodes, launch.node_rank and
launch.master_addr; mpirun, and deepspeed with launch.hostfile, are started on one and reach the others.
"""

import argparse
import os
import shlex
import sys
from pathlib import Path

from megatron_ext.cli.plan import print_plan
from megatron_ext.config.dump import run_to_yaml
from megatron_ext.config.load import load_run_config, split_sources
from megatron_ext.config.sections import RunConfig
from megatron_ext.errors import ConfigError, LaunchError
from megatron_ext.launch.command import LAUNCHERS, Command, Job, build_command, with_free_port
from megatron_ext.train.inputs import check_inputs
from megatron_ext.utils.atomic import write_text
from megatron_ext.utils.console import get_logger

logger = get_logger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``launch``."""
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="CONFIG.yaml | section.key=value",
        help="configuration files and overrides; values are YAML",
    )
    parser.add_argument("--launcher", choices=sorted(LAUNCHERS), help="same as launch.launcher=…")
    parser.add_argument("--nproc-per-node", type=int, metavar="N", help="same as launch.nproc_per_node=N")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print layout, steps, tokens and memory, start nothing; needs no GPU",
    )


def run(arguments: argparse.Namespace) -> int:
    """Check the run, then print its plan or become its launcher."""
    config = _load(arguments)
    if arguments.dry_run:
        print_plan(config)
        return 0
    command = prepare(config)
    logger.info("%s", shlex.join(command.arguments))
    sys.stdout.flush()
    variables = {**os.environ, **command.variables}
    # The launcher takes this process's place: signals reach it, and its exit code is ours.
    try:
        os.execve(command.arguments[0], command.arguments, variables)  # noqa: S606 (no shell is wanted)
    except OSError as error:
        raise LaunchError(f"{command.arguments[0]} cannot be started: {error.strerror}") from None


def prepare(config: RunConfig) -> Command:
    """Check launcher and inputs, write the resolved run to its folder, and return the command that trains it.

    Raises:
        MegatronExtError: if the tokenizer, the data or the checkpoint that the run names cannot be used.
        ConfigError: if the run's folder cannot be written.
        LaunchError: if the launcher cannot start this job from here.
        MissingDependencyError: if the launcher is not installed.
    """
    # Nodes may share the folder, and their files differ in launch.node_rank.
    rank = config.launch.node_rank
    path = Path(config.run_dir) / ("run.yaml" if rank == 0 else f"run.node{rank}.yaml")
    wanted = Job(
        worker=("megatron_ext.cli.main", "train", "--run-config", str(path)),
        **config.launch.model_dump(exclude={"launcher"}),
    )
    job = with_free_port(wanted)
    if job.master_port != wanted.master_port:
        logger.info("port %d is taken: using %d", wanted.master_port, job.master_port)
    command = build_command(config.launch.launcher, job)
    check_inputs(config)  # here, once, before there are processes to end and launchers to quieten
    try:
        write_text(path, run_to_yaml(config))
    except OSError as error:
        raise ConfigError(f"run_dir={config.run_dir}: cannot be written: {error.strerror}") from None
    return command


def _load(arguments: argparse.Namespace) -> RunConfig:
    files, overrides = split_sources(arguments.sources)
    if arguments.launcher is not None:
        overrides.append(f"launch.launcher={arguments.launcher}")
    if arguments.nproc_per_node is not None:
        overrides.append(f"launch.nproc_per_node={arguments.nproc_per_node}")
    return load_run_config(files, overrides)
