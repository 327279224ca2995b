"""Everything a running process holds, built once by ``setup.py``."""

import dataclasses
from typing import Protocol

from megatron.core.distributed import DistributedDataParallel
from megatron.core.optimizer import MegatronOptimizer

from megatron_ext.backend.device import Backend
from megatron_ext.config.sections import RunConfig
from megatron_ext.data.loader import TrainLoader, ValidationLoader
from megatron_ext.launch.environment import ProcessEnvironment
from megatron_ext.observe.sinks import Record, Sink
from megatron_ext.train.graphs import StepGraphs
from megatron_ext.train.state import TrainState
from megatron_ext.train.step import StepOutcome
from megatron_ext.train.stop import StopRequest
from megatron_ext.utils.stopwatch import Stopwatch


@dataclasses.dataclass(frozen=True)
class Run:
    """One process's part of a training run.

    ``model`` holds one part for each virtual pipeline stage of this process: one part where stages do not interleave.
    """

    config: RunConfig
    environment: ProcessEnvironment
    backend: Backend
    model: list[DistributedDataParallel]
    optimizer: MegatronOptimizer
    graphs: StepGraphs | None
    train_loader: TrainLoader
    validation_loader: ValidationLoader | None
    start: TrainState
    stop: StopRequest
    stopwatch: Stopwatch
    sinks: list[Sink]
    hooks: "tuple[Hook, ...]"

    def write(self, record: Record) -> None:
        """Hand a record to every sink; only rank 0 has any."""
        for sink in self.sinks:
            sink.write(record)

    def reached_end(self, state: TrainState) -> bool:
        """Whether the run is complete, was asked to stop, or stops here by ``exit_interval``."""
        training = self.config.training
        stops_here = training.exit_interval is not None and state.iteration % training.exit_interval == 0
        return (
            state.iteration >= training.train_iters
            or self.stop.agreed
            or (stops_here and state.iteration > self.start.iteration)
        )


class Hook(Protocol):
    """Something that happens around steps: logging, validation, saving, profiling."""

    def before_training(self, run: Run, state: TrainState) -> None:
        """Called once, before the first step."""

    def after_step(self, run: Run, state: TrainState, outcome: StepOutcome) -> None:
        """Called after each step with the state it led to; every rank calls it in the same order."""

    def after_training(self, run: Run, state: TrainState) -> None:
        """Called once, after the last step."""
