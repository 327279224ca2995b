"""Learning rate as a function of the iteration alone, so that nothing about it has to be saved."""

import math
from collections.abc import Callable

from megatron_ext.config.sections import OptimizerConfig

DECAY_SHAPES: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
    "linear": lambda progress: 1.0 - progress,
    "constant": lambda _progress: 1.0,
}
"""Share of lr - min_lr that is left, from 1 at progress 0; all but ``constant`` reach 0 at progress 1."""


def learning_rate(config: OptimizerConfig, train_iters: int, iteration: int) -> float:
    """Learning rate of one optimizer step.

    Linear warm-up reaches ``lr`` at step ``lr_warmup_iters``; then the decay reaches ``min_lr`` at step
    ``lr_decay_iters`` and stays there (cosine: Loshchilov and Hutter, 2017, arXiv 1608.03983, without restarts).

    Args:
        config: the schedule.
        train_iters: end of the decay where the schedule names none.
        iteration: number of the step, from 1: the first step already learns.
    """
    if iteration < config.lr_warmup_iters:
        return config.lr * iteration / config.lr_warmup_iters
    decay_iters = (config.lr_decay_iters or train_iters) - config.lr_warmup_iters
    progress = min(1.0, (iteration - config.lr_warmup_iters) / max(1, decay_iters))
    return config.min_lr + (config.lr - config.min_lr) * DECAY_SHAPES[config.lr_decay_style](progress)
