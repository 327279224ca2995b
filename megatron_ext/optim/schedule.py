"""Learning rate as a function of the iteration alone, so that nothing about it has to be saved.

A run has one cycle of warm-up and decay; with ``rewarm_from_iters`` a second one follows, which starts from the
rate the first has come to: re-warming and re-decaying, for new data (Ibrahim et al., 2024, arXiv 2403.08763).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from megatron_ext.config.section_optimizer import OptimizerConfig

DECAY_SHAPES: dict[str, Callable[[float], float]] = {
    "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
    "linear": lambda progress: 1.0 - progress,
    "minus_sqrt": lambda progress: 1.0 - math.sqrt(progress),
}
"""Share of lr - min_lr that is left, from 1 at progress 0 to 0 at progress 1.

Cosine: Loshchilov and Hutter, 2017, arXiv 1608.03983, without restarts; 1 - √: Hägele et al., 2024, arXiv 2405.18392.
"""


@dataclass(frozen=True)
class Cycle:
    """Steps, counted from the cycle's start, of one warm-up and decay."""

    start: int
    initial_lr: float
    peak_lr: float
    warmup: int
    end: int


def learning_rate(config: OptimizerConfig, train_iters: int, iteration: int) -> float:
    """Learning rate of one optimizer step.

    Linear warm-up reaches ``lr`` at step ``lr_warmup_iters``; then ``lr_decay_style`` leads to ``min_lr`` at step
    ``lr_decay_iters``, and the rate stays there:

    - cosine, linear: over all of these steps; constant: not at all;
    - WSD: ``lr`` until the last ``lr_wsd_decay_iters`` of them, which fall as ``lr_wsd_decay_style``
      (Hu et al., 2024, arXiv 2404.06395);
    - inverse-square-root: ``lr · √(warm-up / step)``, at least ``min_lr`` (Vaswani et al., 2017, arXiv 1706.03762).

    After ``rewarm_from_iters`` the same shape begins anew, with ``rewarm_lr`` and ``rewarm_iters``, and ends at
    ``train_iters``.

    Args:
        config: the schedule, of a checked run.
        train_iters: end of the decay where the schedule names none.
        iteration: number of the step, from 1: the first step already learns.
    """
    first = Cycle(0, 0.0, config.lr, config.lr_warmup_iters, config.decay_end(train_iters))
    begin = config.rewarm_from_iters
    if begin is None or iteration <= begin:
        return _rate(config, first, iteration)
    second = Cycle(
        begin,
        _rate(config, first, begin),
        config.rewarm_lr or config.lr,
        config.rewarm_iters,
        train_iters - begin,
    )
    return _rate(config, second, iteration)


def _rate(config: OptimizerConfig, cycle: Cycle, iteration: int) -> float:
    step = iteration - cycle.start
    if step <= cycle.warmup:
        return cycle.initial_lr + (cycle.peak_lr - cycle.initial_lr) * step / max(1, cycle.warmup)
    style: str = config.lr_decay_style
    if style == "constant":
        return cycle.peak_lr
    if style == "inverse-square-root":
        rate = cycle.peak_lr * math.sqrt(max(1, cycle.warmup) / step)
        return max(config.min_lr, rate) if step <= cycle.end else config.min_lr
    begin = cycle.warmup
    if style == "WSD":
        begin = max(begin, cycle.end - (config.lr_wsd_decay_iters or 0))
        style = config.lr_wsd_decay_style
    progress = min(1.0, max(0.0, (step - begin) / max(1, cycle.end - begin)))
    return config.min_lr + (cycle.peak_lr - config.min_lr) * DECAY_SHAPES[style](progress)


def corners(config: OptimizerConfig, train_iters: int) -> list[int]:
    """Steps at which the schedule turns, in order and within the run: what a table of it must show."""
    end, wsd = config.decay_end(train_iters), config.lr_wsd_decay_iters
    turns = {1, config.lr_warmup_iters, end, train_iters}
    if config.lr_decay_style == "WSD" and wsd is not None:
        turns.add(end - wsd)
    if config.rewarm_from_iters is not None:
        turns |= {config.rewarm_from_iters, config.rewarm_from_iters + config.rewarm_iters}
        if config.lr_decay_style == "WSD" and wsd is not None:
            turns.add(train_iters - wsd)
    return sorted(turn for turn in turns if 1 <= turn <= train_iters)
