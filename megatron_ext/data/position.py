"""The position of a run in its blend, kept in a checkpoint so that a resumed run need not find it by drawing.

``data_position.json`` is a convenience: ``consumed_samples`` alone decides what comes next. The file holds the
counters of that position and, so that they are used for the blend that they belong to, what that blend was.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from megatron_ext.data.stages import Counters, at_position
from megatron_ext.errors import DataError
from megatron_ext.utils.atomic import write_text
from megatron_ext.utils.console import get_logger

FILE_NAME = "data_position.json"
SHOWN = 3

logger = get_logger(__name__)


Count = Annotated[int, Field(ge=0, lt=2**53)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StageRecord(_Strict):
    """A stage: where it starts, and the share of each set of `BlendRecord.names`."""

    start: int = Field(ge=0)
    weights: tuple[float, ...]


class BlendRecord(_Strict):
    """What decides which sample comes at which position.

    Attributes:
        order: ``permuted`` or ``megatron``.
        seed: of the samples' order.
        seq_length: tokens of a sample.
        train_samples: length of the run where the order depends on it, else None.
        names: of the sets.
        samples_per_epoch: of each set, so that other files of the same name are noticed.
        stages: by start.
    """

    order: str
    seed: int
    seq_length: int
    train_samples: int | None
    names: tuple[str, ...]
    samples_per_epoch: tuple[int, ...]
    stages: tuple[StageRecord, ...] = Field(min_length=1)

    def mix_until(self, position: int) -> tuple[tuple[int, dict[str, float]], ...]:
        """Start and shares of the stages that decide the draws before ``position``; sets in their order."""
        last = at_position([stage.start for stage in self.stages], position)
        return tuple(
            (stage.start, {n: w for n, w in zip(self.names, stage.weights, strict=True) if w > 0})
            for stage in self.stages[: last + 1]
        )


class DataPosition(_Strict):
    """The counters of a position, and the blend they were counted in.

    Attributes:
        consumed_samples: the position.
        blend: whose counters these are.
        before: samples of each set read in earlier stages.
        drawn: samples of each set read in the present stage.
    """

    format_version: Literal[1] = 1
    consumed_samples: int = Field(ge=0)
    blend: BlendRecord
    before: tuple[Count, ...]
    drawn: tuple[Count, ...]

    def counters(self, names: tuple[str, ...]) -> Counters:
        """The counters in the order of ``names``; 0 for sets that are not counted here."""
        before = dict(zip(self.blend.names, self.before, strict=True))
        drawn = dict(zip(self.blend.names, self.drawn, strict=True))
        return Counters(*(np.array([c.get(name, 0) for name in names], np.int64) for c in (before, drawn)))

    def contradiction(self) -> str:
        """What of it cannot be together; empty: nothing."""
        names, stages = self.blend.names, self.blend.stages
        columns = (
            self.blend.samples_per_epoch,
            self.before,
            self.drawn,
            *(stage.weights for stage in stages),
        )
        if len(set(names)) != len(names) or {len(column) for column in columns} != {len(names)}:
            return f"its columns are not all of its {len(names)} sets, each named once"
        stage = stages[at_position([stage.start for stage in stages], self.consumed_samples)]
        if (sum(self.before), sum(self.drawn)) != (stage.start, self.consumed_samples - stage.start):
            return f"its counters do not add up to {self.consumed_samples}"
        if any(times > 0 and share == 0 for times, share in zip(self.drawn, stage.weights, strict=True)):
            return "it counts draws of a set that its stage does not read"
        return ""

    def write(self, folder: Path) -> None:
        """Write ``folder/data_position.json``."""
        write_text(folder / FILE_NAME, self.model_dump_json() + "\n")

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Read ``folder/data_position.json``; None where a checkpoint has none.

        Raises:
            DataError: the file is damaged.
        """
        path = folder / FILE_NAME
        try:
            found = cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            first = error.errors()[0]
            raise _damaged(path, f"{'.'.join(map(str, first['loc'])) or 'file'}: {first['msg']}") from error
        contradiction = found.contradiction()
        if contradiction:
            raise _damaged(path, contradiction)
        return found


def usable(saved: DataPosition | None, blend: BlendRecord, consumed_samples: int) -> DataPosition | None:
    """The counters of a checkpoint if they are those of this blend, else None, and what has changed is said.

    They are if the samples before the position are the same: stages that start later may be added or changed.
    A blend that is not the same goes on at the same position of its own order.

    Raises:
        DataError: the counters are not of the checkpoint's position.
    """
    if saved is None:
        return None
    if saved.consumed_samples != consumed_samples:
        raise DataError(
            f"{FILE_NAME} of the checkpoint counts {saved.consumed_samples:,} samples, its manifest "
            f"{consumed_samples:,}; remove {FILE_NAME}"
        )
    changes = describe_changes(saved.blend, blend, consumed_samples)
    if not changes:
        return saved
    logger.info(
        "the blend is not the checkpoint's (%s): the new one goes on at its own sample %s; to change a mix from "
        "some sample on and keep what was read before, add to data.stages instead",
        changes,
        f"{consumed_samples:,}",
    )
    return None


def describe_changes(saved: BlendRecord, now: BlendRecord, position: int) -> str:
    """What differs between two blends as far as it bears on the samples before ``position``; empty: nothing."""
    changes = [
        f"{key} {getattr(saved, key)} → {getattr(now, key)}"
        for key in ("order", "seed", "seq_length", "train_samples")
        if getattr(saved, key) != getattr(now, key)
    ]
    old, new = saved.mix_until(position), now.mix_until(position)
    if [start for start, _ in old] != [start for start, _ in new]:
        starts = [", ".join(str(start) for start, _ in mix) for mix in (old, new)]
        changes.append(f"stages from samples {starts[0]} → {starts[1]}")
    for (_, then), (_, here) in zip(old, new, strict=False):
        changes += _changes_of_mix(then, here)
    read = {name for _, mix in old for name in mix}
    sizes = [dict(zip(one.names, one.samples_per_epoch, strict=True)) for one in (saved, now)]
    resized = [n for n in saved.names if n in read and n in sizes[1] and sizes[0][n] != sizes[1][n]]
    changes += _listed("other size", [f"{n} {sizes[0][n]} → {sizes[1][n]} samples" for n in resized])
    return "; ".join(dict.fromkeys(changes))


def _changes_of_mix(then: dict[str, float], here: dict[str, float]) -> list[str]:
    both = [name for name in then if name in here]
    moved = [f"{name} {then[name]:.4g} → {here[name]:.4g}" for name in both if then[name] != here[name]]
    changes = _listed("added", [name for name in here if name not in then])
    changes += _listed("removed", [name for name in then if name not in here])
    changes += _listed("other share", moved)
    if not changes and list(then) != list(here):
        changes.append("sets in another order")
    return changes


def _listed(what: str, items: list[str]) -> list[str]:
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return [f"{what}: {', '.join(items[:SHOWN])}{more}"] if items else []


def _damaged(path: Path, why: str) -> DataError:
    return DataError(f"{path}: {why}; remove it, and the run finds its position by drawing (some seconds)")
