"""Rules between the values of ``data``: what is held out, how much is read of what, and in which stages."""

from collections.abc import Iterator

from megatron_ext.config.section_data import DatasetConfig
from megatron_ext.config.sections import RunConfig
from megatron_ext.config.violation import Rule, Violation


def _held_out_data(run: RunConfig) -> Iterator[Violation]:
    data, training = run.data, run.training
    if data.valid and data.split is not None:
        yield Violation(
            ("data.split", "data.valid"),
            "data.split and data.valid both say what is held out; keep one of them",
        )
    shares = None if data.split is None else _shares(data.split)
    if data.split is not None and shares is None:
        yield Violation(
            ("data.split",),
            f"data.split={data.split}: must be three numbers ≥ 0 for train, valid and test, the first "
            "above 0; such as 98,1,1",
        )
    if data.valid or (shares and shares[1] > 0):
        return
    asked = {
        "eval_interval": training.eval_interval,
        "eval_iters": training.eval_iters,
        "eval_at_start": training.eval_at_start,
    }
    for name, value in asked.items():
        if value:
            yield Violation(
                (f"training.{name}",),
                f"training.{name}={str(value).lower()} asks for validation, and nothing is held out; name "
                "files under data.valid, or set data.split, such as 98,1,1",
            )


def _shares(split: str) -> list[float] | None:
    try:
        shares = [float(share) for share in split.split(",")]
    except ValueError:
        return None
    usable = len(shares) == 3 and shares[0] > 0 and all(0 <= share < float("inf") for share in shares)
    return shares if usable else None


def _amounts(run: RunConfig) -> Iterator[Violation]:
    lists = {"data.train": run.data.train}
    lists |= {f"data.stages[{i}].train": stage.train for i, stage in enumerate(run.data.stages)}
    for key, entries in lists.items():
        yield from _amounts_of_list(key, entries)


def _amounts_of_list(key: str, entries: tuple[DatasetConfig, ...]) -> Iterator[Violation]:
    units: dict[str, int] = {}
    for index, entry in enumerate(entries):
        given = list(entry.amounts)
        if len(given) > 1:
            yield Violation(
                (f"{key}[{index}].{given[1]}",),
                f"{key}[{index}]: {' and '.join(given)} both say how much is read; keep one of them",
            )
            return
        for unit in given:
            units.setdefault(unit, index)
    if len(units) > 1:
        (first, _), (second, index) = list(units.items())[:2]
        yield Violation(
            (f"{key}[{index}].{second}",),
            f"{key}[{index}].{second}: other entries of {key} have {first}, which does not compare; "
            "use one of weight, tokens and samples for the whole list",
        )
    elif units and any(not entry.amounts for entry in entries):
        unit = next(iter(units))
        weighted = sum(bool(entry.amounts) for entry in entries)
        missing = next(index for index, entry in enumerate(entries) if not entry.amounts)
        yield Violation(
            (f"{key}[{missing}]",),
            f"{key}: {weighted} of {len(entries)} entries have a {unit}; give one to all or to none",
        )
    elif units and not any(amount for entry in entries for amount in entry.amounts.values()):
        unit = next(iter(units))
        yield Violation((key,), f"{key}: every {unit} is 0, so nothing would be read")


def _stages(run: RunConfig) -> Iterator[Violation]:
    train_samples = run.training.train_samples
    before = 0
    for index, stage in enumerate(run.data.stages):
        key = f"data.stages[{index}]"
        if (stage.from_samples is None) == (stage.from_fraction is None):
            yield Violation(
                (f"{key}.from_fraction", key),
                f"{key}: give its start as one of from_samples and from_fraction",
            )
            return
        start = stage.start(train_samples)
        if start <= before:
            yield Violation(
                (f"{key}.from_samples", f"{key}.from_fraction"),
                f"{key} starts at sample {start:,}, which is not after the start of what it follows, "
                f"{before:,}; write stages by their start",
            )
        before = start
    if run.data.stages and run.data.order == "megatron":
        yield Violation(
            ("data.stages",),
            "data.stages: data.order=megatron repeats an order that megatron-core lays out for one blend of the "
            "whole run, and megatron-core has no stages; use order: permuted",
        )


def _document_boundaries(run: RunConfig) -> Iterator[Violation]:
    if run.data.reset_position_ids and not run.data.reset_attention_mask:
        yield Violation(
            ("data.reset_position_ids",),
            "data.reset_position_ids=true needs reset_attention_mask=true: rotary embeddings are relative, "
            "so tokens of two documents that see each other need positions of one count",
        )


DATA_RULES: tuple[Rule, ...] = (_held_out_data, _amounts, _stages, _document_boundaries)
