"""Where metrics go: console, ``metrics.jsonl``, TensorBoard, Weights & Biases. Only rank 0 builds sinks."""

import importlib
import json
import math
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from megatron_ext.config.sections import LoggingConfig
from megatron_ext.errors import DataError, MissingDependencyError
from megatron_ext.observe.groups import LABEL
from megatron_ext.utils.atomic import write_text
from megatron_ext.utils.console import console

Record = Mapping[str, object]
SHOWN = 8
"""Values of a dimension on the console: those with the most tokens."""


class Sink(Protocol):
    """Takes records; a new kind of output is a class with these two methods and a line in ``build_sinks``."""

    def write(self, record: Record) -> None:
        """Take one record, as ``TrainRecord.to_dict`` or ``ValidationRecord.to_dict`` makes them."""

    def close(self) -> None:
        """Write what is left, and let go."""


def build_sinks(config: LoggingConfig, run_dir: Path, resumed_iteration: int, train_iters: int) -> list[Sink]:
    """Build the sinks that a run asks for.

    Args:
        config: the run's logging section.
        run_dir: folder that holds ``metrics.jsonl`` and what the trackers write.
        resumed_iteration: iteration the run goes on from; 0 starts afresh.
        train_iters: last iteration of the run.

    Raises:
        MissingDependencyError: a tracker was asked for and its package is not installed.
    """
    sinks: list[Sink] = []
    if config.tensorboard:
        sinks.append(TensorBoardSink(run_dir / "tensorboard", resumed_iteration, config.track_labels))
    if config.wandb_project is not None:
        sinks.append(WandbSink(config.wandb_project, run_dir, resumed_iteration, config.track_labels))
    return [ConsoleSink(train_iters), JsonlSink(run_dir / "metrics.jsonl", resumed_iteration), *sinks]


class ConsoleSink:
    """One readable line for each record, and one for each dimension of its groups but labels."""

    def __init__(self, train_iters: int) -> None:
        self.train_iters = train_iters

    def write(self, record: Record) -> None:
        """Print the record's lines."""
        line = train_line if record["kind"] == "train" else validation_line
        for text in (line(record, self.train_iters), *group_lines(record)):
            console.print(text, highlight=False, markup=False)

    def close(self) -> None:
        """Nothing is left to write."""


def train_line(record: Mapping[str, Any], train_iters: int) -> str:
    """A training record for people: progress, loss, speed and the time left."""
    remaining = (train_iters - record["iteration"]) * record["iteration_time_s"]
    parts = [
        f"iteration {_progress(record['iteration'], train_iters)}",
        f"loss {record['lm_loss']:.4f}",
        f"lr {record['learning_rate']:.2e}",
        f"grad norm {record['grad_norm']:.3f}",
        f"{record['tokens_per_second_per_gpu']:,.0f} tokens/s/device",
    ]
    if record.get("skipped_iterations"):
        parts.append(f"{record['skipped_iterations']:,} steps skipped")
    if record["mfu"] is not None:
        parts.append(f"MFU {record['mfu']:.1%}")
    return " | ".join([*parts, f"{format_duration(remaining)} left"])


def validation_line(record: Mapping[str, Any], train_iters: int) -> str:
    """A validation record for people: the loss over all held-out sets together."""
    parts = [
        f"validation at {_progress(record['iteration'], train_iters)}",
        f"loss {record['lm_loss']:.4f}",
        f"perplexity {record['perplexity']:,.2f}",
    ]
    if record["bits_per_byte"] is not None:
        parts.append(f"{record['bits_per_byte']:.4f} bits per byte")
    return " | ".join([*parts, f"{record['tokens']:,} tokens of {len(record['per_dataset']):,} sets"])


def group_lines(record: Mapping[str, Any]) -> list[str]:
    """The losses of a record's groups for people; labels are too many."""
    lines = []
    for dimension, scores in record.get("per_group", {}).items():
        if dimension != LABEL:
            shown = sorted(scores, key=lambda value: -scores[value]["tokens"])[:SHOWN]
            losses = [f"{value} {score['lm_loss']:.4f}" for value, score in scores.items() if value in shown]
            more = [f"and {len(scores) - SHOWN} more"] if len(scores) > SHOWN else []
            lines.append(f"  loss by {dimension}: {', '.join(losses + more)}")
    return lines


def format_duration(seconds: float) -> str:
    """Seconds as h:mm:ss, with days in front when there are any."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return (f"{days} d " if days else "") + f"{hour}:{minute:02}:{second:02}"


def _progress(iteration: int, train_iters: int) -> str:
    total = f"{train_iters:,}"
    return f"{iteration:>{len(total)},}/{total}"


class JsonlSink:
    """One JSON object a line. JSON has no NaN and no infinity: such a value is written as null.

    A run that resumes at iteration i keeps the lines up to i and drops the rest, which it is about to write
    again; so the file ends up with the rows of a run that was never stopped. A fresh run empties the file.
    """

    def __init__(self, path: Path, resumed_iteration: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            _keep_lines(path, resumed_iteration)
        self._stream = path.open("a", encoding="utf-8")

    def write(self, record: Record) -> None:
        """Append the record and hand it to the operating system, so that the file can be followed."""
        line = json.dumps(_finite(record), ensure_ascii=False, allow_nan=False)
        self._stream.write(line + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def _keep_lines(path: Path, last_iteration: int) -> None:
    with path.open(encoding="utf-8") as stream:
        lines = stream.readlines()
    if lines and not lines[-1].endswith("\n"):
        lines.pop()  # the process was killed while writing it
    kept = []
    for number, line in enumerate(lines, start=1):
        iteration = _iteration_of(line, path, number)
        if 0 < last_iteration >= iteration:
            kept.append(line)
    write_text(path, "".join(kept))


def _iteration_of(line: str, path: Path, number: int) -> int:
    try:
        return int(json.loads(line)["iteration"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}:{number}: not a record of metrics ({error}); move the file away to start a new one"
        ) from error


def _finite(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def scalars(record: Mapping[str, Any], *, labels: bool = False) -> dict[str, float]:
    """A record's numbers under flat names.

    Such as ``train/lm_loss``, ``train_tier/high/lm_loss`` and ``validation/eng_Latn/lm_loss``; ``train_label/…`` only
    if ``labels`` are asked for.
    """
    prefix = str(record["kind"])
    numbers = _numbers(prefix, record)
    for name, score in record.get("per_dataset", {}).items():
        numbers |= _numbers(f"{prefix}/{name}", score)
    for dimension, scores in record.get("per_group", {}).items():
        if labels or dimension != LABEL:
            for value, score in scores.items():
                numbers |= _numbers(f"{prefix}_{dimension}/{value}", score)
    return numbers


def _numbers(prefix: str, values: Record) -> dict[str, float]:
    return {f"{prefix}/{key}": value for key, value in values.items() if isinstance(value, int | float)}


class TensorBoardSink:
    """Event files for TensorBoard, one scalar for each number of a record."""

    def __init__(self, folder: Path, resumed_iteration: int, labels: bool = False) -> None:
        try:
            tensorboard = importlib.import_module("torch.utils.tensorboard")
        except ImportError as error:
            raise MissingDependencyError(
                "tensorboard", "write TensorBoard files (logging.tensorboard)", "pip install tensorboard"
            ) from error
        self._labels = labels
        # purge_step hides what an earlier process wrote from that step on, and this one will write again.
        purge_step = resumed_iteration + 1 if resumed_iteration else 0
        self._writer = tensorboard.SummaryWriter(str(folder), purge_step=purge_step)

    def write(self, record: Record) -> None:
        """Add the record's numbers at its iteration."""
        for name, number in scalars(record, labels=self._labels).items():
            self._writer.add_scalar(name, number, global_step=record["iteration"])

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


class WandbSink:
    """A run in Weights & Biases, named after the run folder; resuming goes on with the same run."""

    def __init__(self, project: str, run_dir: Path, resumed_iteration: int, labels: bool = False) -> None:
        try:
            wandb = importlib.import_module("wandb")
        except ImportError as error:
            raise MissingDependencyError(
                "wandb", "log to Weights & Biases (logging.wandb_project)", "pip install wandb"
            ) from error
        self._labels = labels
        id_file = run_dir / "wandb_id"
        if resumed_iteration == 0 or not id_file.exists():
            write_text(id_file, uuid.uuid4().hex)
        self._run = wandb.init(
            project=project,
            name=run_dir.name,
            id=id_file.read_text(encoding="utf-8"),
            dir=str(run_dir),
            resume="allow",
        )
        # Plotted over the iteration and not over W&B's own step, which may not go back when a run resumes.
        self._run.define_metric("*", step_metric="iteration")

    def write(self, record: Record) -> None:
        """Log the record's numbers."""
        self._run.log({"iteration": record["iteration"], **scalars(record, labels=self._labels)})

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()
