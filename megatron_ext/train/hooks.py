"""What happens around steps: logging, validation, saving. Order matters: measure first, save last."""

import dataclasses
import math
from pathlib import Path

import torch
import torch.distributed as dist

from megatron_ext.backend.device import Backend
from megatron_ext.config.sections import RunConfig
from megatron_ext.convert.output import check_output
from megatron_ext.convert.to_hf import export_hf, is_export
from megatron_ext.data.blend import ValidationDataset
from megatron_ext.data.build import Datasets
from megatron_ext.errors import ConversionError, TrainingError
from megatron_ext.model.flops import flops_per_token
from megatron_ext.observe.groups import group_sets
from megatron_ext.observe.metrics import GroupLoss, TrainRecord
from megatron_ext.observe.throughput import FULL_ATTENTION, Throughput, peak_tflops
from megatron_ext.train.checkpoints import save
from megatron_ext.train.group_losses import GroupLosses
from megatron_ext.train.run import Hook, Run
from megatron_ext.train.state import TrainState
from megatron_ext.train.step import StepOutcome
from megatron_ext.train.validation import validate


def build_hooks(config: RunConfig, backend: Backend, datasets: Datasets) -> tuple[Hook, ...]:
    """The hooks of a run, in the order they are called."""
    throughput = Throughput(
        flops_per_token=flops_per_token(config.model, config.training.seq_length, causal=False),
        flop_convention=FULL_ATTENTION,
        world_size=config.launch.world_size,
        peak_tflops=config.logging.peak_tflops
        or peak_tflops(backend.device_name(), config.training.precision),
    )
    train = datasets.train
    groups = group_sets(train.names, train.groups, per_label=config.logging.per_label)
    log = LogHook(throughput, GroupLosses(groups, len(train.names), backend.device))
    validation: tuple[Hook, ...] = () if datasets.valid is None else (ValidationHook(datasets.valid),)
    export: tuple[Hook, ...] = (ExportHook(),) if config.checkpoint.export_hf else ()
    return (log, *validation, SaveHook(), *export)


class LogHook:
    """Every ``log_interval`` steps: one reduction over all processes gives the record and the word on stopping.

    It is the only place where a step is waited for.
    """

    def __init__(self, throughput: Throughput, group_losses: GroupLosses) -> None:
        self.throughput, self.group_losses = throughput, group_losses
        self.last_iteration = self.last_tokens = 0

    def before_training(self, run: Run, state: TrainState) -> None:
        """Start the clock and listen for signals."""
        run.stop.listen()
        run.stopwatch.lap()
        self.last_iteration, self.last_tokens = state.iteration, state.consumed_tokens

    def after_step(self, run: Run, state: TrainState, outcome: StepOutcome) -> None:
        """Log where an interval ends, and before every save: what has diverged must not replace what is good."""
        self.group_losses.add(outcome)
        interval, saves = run.config.logging.log_interval, run.config.checkpoint.save_interval
        before_save = saves is not None and state.iteration % saves == 0
        if state.iteration % interval and not before_save and not run.reached_end(state):
            return
        loss = outcome.loss
        asked = torch.tensor([float(run.stop.requested)], dtype=torch.float64, device=loss.device)
        totals = torch.cat([loss, asked, self.group_losses.take()])
        dist.all_reduce(totals)
        loss_sum, num_tokens, stops, *by_set = totals.tolist()
        if not math.isfinite(loss_sum):
            raise TrainingError(
                f"the loss is {loss_sum} at iteration {state.iteration}: training has diverged and stops before it "
                f"saves; lower optimizer.lr ({run.config.optimizer.lr}) or optimizer.clip_grad, warm up longer, and "
                f"start again from a checkpoint in {run.config.checkpoint_dir} that is good"
            )
        run.stop.agreed = stops > 0
        iterations = state.iteration - self.last_iteration
        speed = self.throughput.measure(
            seconds=run.stopwatch.lap(),
            tokens=state.consumed_tokens - self.last_tokens,
            iterations=iterations,
        )
        record = TrainRecord(
            **dataclasses.asdict(state),
            lm_loss=loss_sum / num_tokens,
            grad_norm=float(outcome.grad_norm),
            learning_rate=outcome.learning_rate,
            **dataclasses.asdict(speed),
            per_group=self._per_group(run, state, by_set, before_save=before_save),
        )
        self.last_iteration, self.last_tokens = state.iteration, state.consumed_tokens
        run.write(record.to_dict())

    def after_training(self, run: Run, state: TrainState) -> None:
        """Nothing is left: the last step was logged."""

    def _per_group(
        self, run: Run, state: TrainState, by_set: list[float], *, before_save: bool
    ) -> dict[str, dict[str, GroupLoss]]:
        """Labels every ``label_interval`` records and before every save: what is added up would not survive a stop."""
        if not run.sinks or not self.group_losses.groups:
            return {}
        logging = run.config.logging
        due = state.iteration % (logging.log_interval * logging.label_interval) == 0
        consumed = run.train_loader.consumed_by_set(state.consumed_samples)
        return self.group_losses.scores(
            by_set,
            consumed * run.config.training.seq_length,
            with_labels=due or before_save or run.reached_end(state),
        )


class ValidationHook:
    """Loss on held-out text every ``eval_interval`` steps, at the end, and at the start where asked."""

    def __init__(self, dataset: ValidationDataset) -> None:
        self.dataset = dataset

    def before_training(self, run: Run, state: TrainState) -> None:
        """Measure the model before its first step."""
        if run.config.training.eval_at_start and state.iteration == 0:
            self._validate(run, state)

    def after_step(self, run: Run, state: TrainState, outcome: StepOutcome) -> None:  # noqa: ARG002
        """Measure where an interval or the run ends."""
        training = run.config.training
        due = training.eval_interval is not None and state.iteration % training.eval_interval == 0
        if due or state.iteration == training.train_iters:
            self._validate(run, state)

    def after_training(self, run: Run, state: TrainState) -> None:
        """Nothing is left: the last step was measured if it was the run's last."""

    def _validate(self, run: Run, state: TrainState) -> None:
        with run.stopwatch.paused():
            run.write(validate(run, self.dataset, state).to_dict())


class SaveHook:
    """A checkpoint every ``save_interval`` steps and wherever training ends."""

    def __init__(self) -> None:
        self.saved_iteration = -1

    def before_training(self, run: Run, state: TrainState) -> None:
        """What was loaded is saved already."""
        del run
        self.saved_iteration = state.iteration

    def after_step(self, run: Run, state: TrainState, outcome: StepOutcome) -> None:  # noqa: ARG002
        """Save where an interval ends."""
        interval = run.config.checkpoint.save_interval
        if interval is not None and state.iteration % interval == 0:
            self._save(run, state)

    def after_training(self, run: Run, state: TrainState) -> None:
        """Save what is not saved yet."""
        self._save(run, state)

    def _save(self, run: Run, state: TrainState) -> None:
        if state.iteration != self.saved_iteration:
            with run.stopwatch.paused():
                save(run.config, run.model, run.optimizer, state, run.train_loader)
            self.saved_iteration = state.iteration


class ExportHook:
    """Hugging Face format in ``<run_dir>/hf`` once the run is complete, from the checkpoint that was just saved."""

    def before_training(self, run: Run, state: TrainState) -> None:  # noqa: ARG002
        """Refuse now what could not be replaced at the end."""
        try:
            check_output(Path(run.config.hf_dir), overwrite=True, is_replaceable=is_export)
        except ConversionError as error:
            raise ConversionError(f"checkpoint.export_hf: {error}") from error

    def after_step(self, run: Run, state: TrainState, outcome: StepOutcome) -> None:
        """Only a run that is complete is exported."""

    def after_training(self, run: Run, state: TrainState) -> None:
        """Rank 0 writes it, tensor by tensor; nobody waits."""
        if state.iteration >= run.config.training.train_iters and dist.get_rank() == 0:
            export_hf(Path(run.config.checkpoint_dir), Path(run.config.hf_dir), overwrite=True)
