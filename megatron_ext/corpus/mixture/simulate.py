"""The order in which a run is going to draw its samples, counted step by step against the plan."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megatron_ext.corpus.mixture.blend_file import training_entries
from megatron_ext.corpus.mixture.plan import Plan
from megatron_ext.data.stages import Stage, StagedBlend, normalised
from megatron_ext.data.weights import trained_per_sample

CHUNK_SAMPLES = 2**20  # drawn at a time
DEFAULT_STEP_SAMPLES = 1024  # where no run says how many samples a step has


@dataclass(frozen=True)
class Simulation:
    """What was counted.

    megatron-core's order draws the set that lags most. Mostly none is off by a whole sample; a set with nearly all
    of the weight may be, by one or two, while several small ones are drawn a little early.

    Attributes:
        samples: drawn.
        step_samples: samples of a step.
        steps: after which the counts were compared, the ends of stages included.
        deviation: the largest distance of a set's samples from its share of the stage's so far.
        set_name: the dataset that was so far off.
        at_sample: where.
        drawn: int64 [stages, datasets], samples of each.
    """

    samples: int
    step_samples: int
    steps: int
    deviation: float
    set_name: str
    at_sample: int
    drawn: NDArray[np.int64]

    def describe(self) -> str:
        """One line of text."""
        return (
            f"simulated {self.samples:,} samples of {self.drawn.shape[1]} sets: compared after each of "
            f"{self.steps:,} steps of {self.step_samples:,}, every set is within {self.deviation:.3f} samples of the "
            f"plan (the farthest, at sample {self.at_sample:,}: {self.set_name})"
        )


def blend_stages(plan: Plan) -> tuple[list[str], list[Stage]]:
    """The datasets that the run reads, and the stages that it makes of the plan's file."""
    names: dict[str, int] = {}
    asked: list[dict[str, float]] = []
    for planned in plan.stages:
        asked.append({})
        for entry, tokens in training_entries(plan, planned):
            names.setdefault(entry.path, len(names))
            trained = trained_per_sample(tokens, plan.budget.seq_length, "permuted")
            asked[-1][entry.path] = (entry.tokens or 0.0) / trained
    stages = [
        Stage(planned.from_samples, normalised(normalised([amounts.get(name, 0.0) for name in names])))
        for planned, amounts in zip(plan.stages, asked, strict=True)
    ]
    return list(names), stages


def simulate(plan: Plan) -> Simulation:
    """Draw the whole run."""
    names, stages = blend_stages(plan)
    step = plan.budget.step_samples or DEFAULT_STEP_SAMPLES
    blend = StagedBlend(stages)
    worst, worst_set, at_sample, steps = 0.0, 0, 0, 0
    drawn = np.zeros((len(stages), len(names)), dtype=np.int64)
    for index, (stage, planned) in enumerate(zip(stages, plan.stages, strict=True)):
        end = planned.from_samples + planned.samples
        while blend.position < end:
            start = blend.position
            stop = min((start // step + max(CHUNK_SAMPLES // step, 1)) * step, end)
            counts = drawn[index] + _counts(blend.draw(stop - start)[0], start, step, len(names))
            positions = np.minimum((start // step + 1 + np.arange(len(counts))) * step, stop)
            off = np.abs(counts - np.outer(positions - stage.start, stage.weights))
            row, column = np.unravel_index(int(np.argmax(off)), off.shape)
            if off[row, column] > worst:
                worst, worst_set, at_sample = float(off[row, column]), int(column), int(positions[row])
            drawn[index] = counts[-1]
            steps += len(counts)
    return Simulation(plan.samples, step, steps, worst, names[worst_set], at_sample, drawn)


def _counts(sets: NDArray[np.int32], start: int, step: int, num_sets: int) -> NDArray[np.int64]:
    """Draws of each set up to the end of each step, int64 [steps, sets]; ``start`` is the first draw's position."""
    step_of = (start + np.arange(len(sets))) // step - start // step
    num_steps = int(step_of[-1]) + 1
    counts = np.bincount(step_of * num_sets + sets, minlength=num_steps * num_sets)
    return np.cumsum(counts.reshape(num_steps, num_sets), axis=0)
