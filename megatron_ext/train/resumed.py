"""What a run that resumes does otherwise than the run that saved its checkpoint, said before it goes on.

Everything may be changed at a resume: position, schedule and ramp are functions of samples and steps alone. What is
easily changed without meaning it is the learning rate: of a cosine, more ``train_iters`` raise what is left of it.
"""

from pathlib import Path
from typing import Any

from megatron_ext.config.load import load_part
from megatron_ext.config.section import Section
from megatron_ext.config.section_optimizer import OptimizerConfig
from megatron_ext.config.sections import RunConfig, TrainingConfig
from megatron_ext.errors import ConfigError
from megatron_ext.optim.schedule import learning_rate
from megatron_ext.train.state import TrainState
from megatron_ext.utils.console import get_logger

WITHOUT_EFFECT = {"micro_batch_size", "eval_interval", "eval_iters", "eval_at_start", "exit_interval"}
"""Keys of ``training`` that change nothing about what is learnt."""
SAME_RATE = 1e-9
"""Relative: what a rate may change by when YAML writes its settings down and reads them."""

logger = get_logger(__name__)


def announce_changes(folder: Path, run: RunConfig, state: TrainState) -> None:
    """Log how ``training`` and ``optimizer`` differ from those in a checkpoint, and what that does to the rate.

    Args:
        folder: the checkpoint, whose ``run.yaml`` is that of the run which saved it.
        run: the run that goes on from it.
        state: where it goes on.
    """
    try:
        training, _ = load_part(folder / "run.yaml", "training", TrainingConfig)
        optimizer, _ = load_part(folder / "run.yaml", "optimizer", OptimizerConfig)
    except ConfigError as error:
        logger.info(f"cannot tell what changed since {folder.name} was saved: {error}")
        return
    if state.iteration >= run.training.train_iters:
        logger.info(
            f"nothing is left to train: training.train_iters={run.training.train_iters}, and {folder.name} is there; "
            "raise it to go on"
        )
        return
    changed = [
        *_differences("training", training, run.training),
        *_differences("optimizer", optimizer, run.optimizer),
    ]
    if changed:
        logger.info(f"changed since {folder.name} was saved: {', '.join(changed)}")
    step = state.next_update
    before = learning_rate(optimizer, training.train_iters, step)
    now = learning_rate(run.optimizer, run.training.train_iters, step)
    if abs(now - before) > SAME_RATE * max(now, before):
        end = optimizer.decay_end(training.train_iters)
        logger.info(
            f"the learning rate of update {step} is {now:.4g}, and would have been {before:.4g} with the settings of "
            f"{folder.name}. To stay on the old curve, keep them, with optimizer.lr_decay_iters={end} where only the "
            f"run is longer; for new data, optimizer.rewarm_from_iters={step - 1} begins another after it"
        )


def _differences(section: str, saved: Section, now: Section) -> list[str]:
    def values(one: Section) -> dict[str, Any]:
        return {key: value for key, value in one.model_dump().items() if key not in WITHOUT_EFFECT}

    ours = values(now)
    return [
        f"{section}.{key} from {_shown(value)} to {_shown(ours[key])}"
        for key, value in values(saved).items()
        if ours[key] != value
    ]


def _shown(value: object) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
