"""``megatron-ext train``: what a launcher starts in each process. People start ``launch``, which starts this."""

import argparse
from pathlib import Path

from megatron_ext.config.dump import load_resolved
from megatron_ext.config.sections import RunConfig
from megatron_ext.launch.environment import ProcessEnvironment
from megatron_ext.utils.console import get_logger

logger = get_logger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument(
        "--run-config",
        type=Path,
        required=True,
        metavar="FILE",
        help="the resolved run that launch wrote, <run_dir>/run.yaml",
    )


def run(arguments: argparse.Namespace) -> int:
    """Train this process's part."""
    # Here, because they import torch and megatron-core: --help does not wait for them.
    from megatron_ext.train.loop import train  # noqa: PLC0415
    from megatron_ext.train.setup import build_run, leave_processes  # noqa: PLC0415

    config = load_resolved(arguments.run_config)
    training = build_run(config, ProcessEnvironment.detect())
    try:
        state = train(training)
    finally:
        for sink in training.sinks:
            sink.close()
        if training.graphs is not None:
            training.graphs.release()
    leave_processes()
    if state.iteration >= config.training.train_iters:
        logger.info(
            f"trained {state.iteration:,} iterations on {state.consumed_tokens:,} tokens; the last checkpoint is in "
            f"{config.checkpoint_dir}. {_next(config)}"
        )
    else:
        logger.info(
            f"stopped at iteration {state.iteration:,} of {config.training.train_iters:,}; "
            "the same launch.sh command resumes"
        )
    return 0


def _next(config: RunConfig) -> str:
    if config.checkpoint.export_hf:
        command = f'python tools/generate.py --hf-path {config.hf_dir} --prompt "…"'
        return f"In Hugging Face format it is {config.hf_dir}. Next: {command}"
    return (
        f"Next: python tools/convert_checkpoint.py to-hf --checkpoint {config.checkpoint_dir} "
        f"--output {config.hf_dir}"
    )
