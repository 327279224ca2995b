"""Which sample comes when: megatron-core's greedy blend, and another blend from a given sample on."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from megatron_ext import _C

ENDLESS = 2**53  # the last stage's end: the blend counts in doubles


@dataclass(frozen=True)
class Stage:
    """A blend that holds from a sample of the run on.

    Attributes:
        start: samples before it.
        weights: float64 [sets]: shares of the samples that add up to 1; 0: not read in this stage.
    """

    start: int
    weights: NDArray[np.float64]


@dataclass(frozen=True)
class Counters:
    """Where a stream of draws stands, in samples of each set, int64 [sets].

    Attributes:
        before: in the stages before the present one.
        drawn: in the present stage.
    """

    before: NDArray[np.int64]
    drawn: NDArray[np.int64]


def normalised(weights: ArrayLike) -> NDArray[np.float64]:
    """Weights that add up to 1, rounded as megatron-core rounds them.

    Sets of weight 0 have no part in the sum: where they stand moves no bit.

    Raises:
        ValueError: a weight is negative or not finite, or all are 0.
    """
    values = np.array(weights, dtype=np.float64)
    if not (np.isfinite(values) & (values >= 0)).all() or not values.any():
        raise ValueError("weights are finite, not negative, and not all 0")
    read = values > 0
    values[read] = values[read] / np.sum(values[read])
    return values


def at_position(starts: Sequence[int], position: int) -> int:
    """The stage that a reader at ``position`` is in: it enters the next one with the draw after its start."""
    return max(sum(start < position for start in starts) - 1, 0)


class StagedBlend:
    """Draws the set and the sample for each position of a run.

    Within a stage the draws are megatron-core's of its weights, from counters that start at 0. Sample numbers
    of a set go on from stage to stage, so that none comes twice before all have come. The state is two
    counters a set; the same position always gives the same draws, however it was reached.

    Args:
        stages: ascending by start, the first at 0.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = tuple(stages)
        self._enter(0, np.zeros(len(stages[0].weights), dtype=np.int64))

    @property
    def position(self) -> int:
        """Draws so far."""
        return self._start + self._blend.position

    def counters(self) -> Counters:
        """For `restore`, of this position."""
        drawn = np.zeros_like(self._before)
        drawn[self._sets] = self._blend.counts()
        return Counters(self._before, drawn)

    def draw(self, count: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """The next draws.

        Returns:
            The set of each, int32 [count], and the sample within it, int64 [count].
        """
        parts = [self._draw_in_stage(count)]
        while (missing := count - sum(len(sets) for sets, _ in parts)) > 0:
            self._enter_next()
            parts.append(self._draw_in_stage(missing))
        sets, samples = zip(*parts, strict=True)
        return np.concatenate(sets), np.concatenate(samples)

    def seek(self, position: int) -> None:
        """Go to a position by making the draws before it, from here or else from the start."""
        if position < self.position:
            self._enter(0, np.zeros_like(self._before))
        while position > self._end:
            self._blend.seek(self._end - self._start)
            self._enter_next()
        self._blend.seek(position - self._start)

    def restore(self, position: int, counters: Counters) -> None:
        """Go to a position at once, by the counters that a blend of the same stages up to there had.

        Raises:
            ValueError: the counters do not add up to the position.
        """
        index = at_position([stage.start for stage in self._stages], position)
        start = self._stages[index].start
        if int(counters.before.sum()) != start or (counters.before < 0).any():
            raise ValueError(
                f"the counters of earlier stages do not add up to {start}, where this one starts"
            )
        self._enter(index, counters.before)
        self._blend.restore(position - start, counters.drawn[self._sets])

    def _draw_in_stage(self, count: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        drawn, times = self._blend.draw(min(count, self._end - self.position))
        sets = self._sets[drawn]
        return sets, self._before[sets] + times

    def _enter_next(self) -> None:
        counters = self.counters()
        self._enter(self._index + 1, counters.before + counters.drawn)

    def _enter(self, index: int, before: NDArray[np.int64]) -> None:
        self._index = index
        self._before = before
        self._start = self._stages[index].start
        weights = self._stages[index].weights
        self._sets = np.flatnonzero(weights).astype(np.int32)
        self._blend = _C.Blend(weights[self._sets])
        later = self._stages[index + 1 : index + 2]
        self._end = later[0].start if later else ENDLESS
