"""Counters in a checkpoint: those of the consumed position, used for the blend they belong to and for no other."""

import json
import math
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megatron_ext.data.blend import BlendedDataset
from megatron_ext.data.loader import TrainLoader
from megatron_ext.data.position import FILE_NAME, BlendRecord, DataPosition, StageRecord, usable
from megatron_ext.data.sampler import BatchSampler
from megatron_ext.data.samples import DocumentRules, TokenSet
from megatron_ext.data.stages import Stage, StagedBlend
from megatron_ext.errors import DataError

MakeSet = Callable[..., TokenSet]
GLOBAL_BATCH = 12


@pytest.fixture
def sets(make_set: MakeSet) -> list[TokenSet]:
    random = np.random.default_rng(11)
    return [make_set(f"set{i}", [n], random.integers(0, 999, n)) for i, n in enumerate((60, 300, 1000))]


def blended(
    sets: list[TokenSet], weights: tuple[float, ...] = (2, 3, 5), seed: int = 1, **stages: tuple[float, ...]
) -> BlendedDataset:
    """Later stages as from<start>=weights."""
    return BlendedDataset(
        sets,
        weights,
        order="permuted",
        seq_length=8,
        seed=seed,
        train_samples=1000,
        rules=DocumentRules(),
        later_stages=[
            Stage(int(name.removeprefix("from")), np.array(parts, dtype=np.float64))
            for name, parts in stages.items()
        ],
    )


def saved_at(dataset: BlendedDataset, position: int) -> DataPosition:
    return dataset.position(dataset.blend(position))


def rows(loader: TrainLoader, consumed: int, count: int) -> list[list[tuple[int, ...]]]:
    """Rows of each global batch of a rank, as (set, tokens)."""
    stream = loader.batches(consumed)
    batches = [
        [
            (int(owner), *tokens.tolist())
            for micro in batch
            for owner, tokens in zip(micro.dataset_index, micro.tokens, strict=True)
        ]
        for batch in islice(stream, count)
    ]
    stream.close()
    return batches


@pytest.mark.parametrize("stop", [2, 5, 7])
@pytest.mark.parametrize(("micro", "ranks"), [(12, 1), (1, 4), (2, 3), (3, 2)])
def test_a_run_of_two_stages_resumes_on_another_layout(
    sets: list[TokenSet], tmp_path: Path, stop: int, micro: int, ranks: int
) -> None:
    """Stopped before, in the batch of, and after the change of the blend at sample 62, with batches read ahead."""
    through = rows(TrainLoader(blended(sets, from62=(4, 0, 1)), BatchSampler(12, 12, 0, 1), 1), 0, 12)

    first = [
        TrainLoader(blended(sets, from62=(4, 0, 1)), BatchSampler(6, 12, rank, 2), 4) for rank in range(2)
    ]
    before = [rows(loader, 0, stop) for loader in first]
    first[0].position(stop * GLOBAL_BATCH).write(tmp_path)

    now = blended(sets, from62=(4, 0, 1))
    consumed = stop * GLOBAL_BATCH
    saved = usable(DataPosition.read(tmp_path), now.record, consumed)
    assert saved is not None
    after = [
        rows(TrainLoader(now, BatchSampler(micro, 12, rank, ranks), 2, saved=saved), consumed, 12 - stop)
        for rank in range(ranks)
    ]
    read = [sorted(row for rank in before for row in rank[i]) for i in range(stop)]
    read += [sorted(row for rank in after for row in rank[i]) for i in range(12 - stop)]
    assert read == [sorted(batch) for batch in through]


def test_the_position_is_the_consumed_one_and_not_the_one_read_ahead(sets: list[TokenSet]) -> None:
    dataset = blended(sets, from30=(1, 1, 1))
    loader = TrainLoader(dataset, BatchSampler(4, 4, 0, 1), 8)
    stream = loader.batches(0)
    for step in range(1, 12):
        next(stream)
        found = loader.position(4 * step)
        drawn = np.bincount(dataset.blend().draw(4 * step)[0], minlength=3)
        assert found.consumed_samples == 4 * step
        assert [a + b for a, b in zip(found.before, found.drawn, strict=True)] == drawn.tolist()
    stream.close()
    assert found == saved_at(dataset, 44)
    assert loader.position(8) == saved_at(dataset, 8)  # backwards


def test_a_loader_follows_from_where_it_resumed(sets: list[TokenSet]) -> None:
    dataset = blended(sets)
    loader = TrainLoader(dataset, BatchSampler(4, 4, 0, 1), 1, saved=saved_at(dataset, 40))
    assert loader.position(40) == saved_at(dataset, 40)
    assert loader.position(52) == saved_at(dataset, 52)


def test_saved_counters_are_used(sets: list[TokenSet], monkeypatch: pytest.MonkeyPatch) -> None:
    """Not found by drawing: a blend that cannot seek gets there."""
    dataset = blended(sets, from30=(1, 1, 1))
    saved, expected = saved_at(dataset, 50), dataset.blend(50).draw(9)
    monkeypatch.setattr(StagedBlend, "seek", lambda *_: pytest.fail("drew its way"))
    found = dataset.blend(50, saved).draw(9)
    assert [one.tolist() for one in found] == [one.tolist() for one in expected]


def test_ten_thousand_sets_read_back_as_they_were(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    weights = random.lognormal(sigma=4, size=10_000)
    record = BlendRecord(
        order="permuted",
        seed=1,
        seq_length=8,
        train_samples=None,
        names=tuple(f"set{i}" for i in range(10_000)),
        samples_per_epoch=tuple(range(1, 10_001)),
        stages=(StageRecord(start=0, weights=tuple((weights / weights.sum()).tolist())),),
    )
    drawn = tuple(random.integers(0, 10**9, 10_000).tolist())
    position = DataPosition(consumed_samples=sum(drawn), blend=record, before=(0,) * 10_000, drawn=drawn)
    position.write(tmp_path)
    assert DataPosition.read(tmp_path) == position  # every bit of every weight
    assert usable(DataPosition.read(tmp_path), record, sum(drawn)) == position
    assert DataPosition.read(tmp_path / "absent") is None


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(
        "megatron_ext.data.position.logger.info", lambda text, *values: found.append(text % values)
    )
    return found


@pytest.mark.parametrize(
    ("now", "reads_on"),
    [
        ({}, {}),
        ({"from40": (1, 1, 1)}, {"from40": (1, 1, 1)}),  # a new stage from the very position on
        ({"from50": (9, 1, 0)}, {"from50": (9, 1, 0)}),
    ],
)
def test_later_stages_may_be_added_to_a_run(
    sets: list[TokenSet], said: list[str], now: dict[str, Any], reads_on: dict[str, Any]
) -> None:
    dataset = blended(sets, **now)
    saved = usable(saved_at(blended(sets, from60=(1, 2, 3)), 40), dataset.record, 40)
    assert saved is not None
    assert said == []
    found, expected = dataset.blend(40, saved).draw(90), blended(sets, **reads_on).blend(40).draw(90)
    assert np.array_equal(np.stack(found), np.stack(expected))


def test_a_stage_that_would_start_at_the_position_may_be_dropped(sets: list[TokenSet]) -> None:
    dataset = blended(sets)
    saved = usable(saved_at(blended(sets, from40=(1, 1, 1)), 40), dataset.record, 40)
    found, expected = dataset.blend(40, saved).draw(90), dataset.blend(40).draw(90)
    assert saved is not None
    assert np.array_equal(np.stack(found), np.stack(expected))


def test_a_set_of_a_later_stage_may_come_in(sets: list[TokenSet]) -> None:
    dataset = blended(sets, (2, 3, 0), from40=(1, 1, 1))
    saved = usable(saved_at(blended(sets[:2], (2, 3)), 40), dataset.record, 40)
    assert saved is not None
    found, expected = dataset.blend(40, saved).draw(90), dataset.blend(40).draw(90)
    assert np.array_equal(np.stack(found), np.stack(expected))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 2}, "seed 1 → 2"),
        ({"weights": (2, 3, 10)}, "other share: set0 0.2 → 0.1333, set1 0.3 → 0.2, set2 0.5 → 0.6667"),
        ({"weights": (2, 3, 0)}, "removed: set2; other share: set0 0.2 → 0.4, set1 0.3 → 0.6"),
        ({"from39": (1, 1, 1)}, "stages from samples 0 → 0, 39"),
    ],
)
def test_a_changed_blend_is_named_and_goes_on_in_its_own_order(
    sets: list[TokenSet], said: list[str], change: dict[str, Any], message: str
) -> None:
    dataset = blended(sets, **change)
    assert usable(saved_at(blended(sets), 40), dataset.record, 40) is None
    assert len(said) == 1
    assert f"({message}): the new one goes on at its own sample 40" in said[0]


def test_sets_that_came_moved_or_changed_are_named(
    sets: list[TokenSet], make_set: MakeSet, said: list[str]
) -> None:
    saved = saved_at(blended(sets), 40)
    more = [*sets, *(make_set(f"new{i}", [50]) for i in range(5))]
    usable(saved, blended(more, (2, 3, 5, 1, 1, 1, 1, 1)).record, 40)
    assert "(added: new0, new1, new2 and 2 more; other share: set0 0.2 → 0.1333, " in said[-1]
    usable(saved, blended([sets[1], sets[0], sets[2]], (3, 2, 5)).record, 40)
    assert "(sets in another order)" in said[-1]
    other = [make_set("set0", [90]), *sets[1:]]
    usable(saved, blended(other).record, 40)
    assert "(other size: set0 8 → 12 samples)" in said[-1]


def damage(folder: Path, **changes: Any) -> None:
    values = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
    (folder / FILE_NAME).write_text(json.dumps({**values, **changes}), encoding="utf-8")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "format_version"),
        ({"drawn": [1, 2]}, "columns are not all of its 3 sets"),
        ({"drawn": [1, 2, 3]}, "do not add up to 40"),
        ({"drawn": [-1, 41, 0]}, "drawn.0"),
        ({"drawn": [0, 0, 4], "before": [12, 12, 12]}, "do not add up"),
        ({"other": 1}, "other"),
        ({"drawn": [0, 10, 0], "before": [0, 0, 30]}, "a set that its stage does not read"),
    ],
)
def test_a_damaged_file_is_named(
    sets: list[TokenSet], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    saved_at(blended(sets, from30=(1, 0, 2)), 40).write(tmp_path)
    damage(tmp_path, **changes)
    with pytest.raises(DataError, match=rf"{FILE_NAME}: .*{message}.*; remove it"):
        DataPosition.read(tmp_path)


def test_counters_of_another_position_are_refused(sets: list[TokenSet]) -> None:
    dataset = blended(sets)
    with pytest.raises(DataError, match="counts 40 samples, its manifest 44"):
        usable(saved_at(dataset, 40), dataset.record, 44)


def test_a_run_of_other_length_is_another_order_only_for_megatron(
    sets: list[TokenSet], said: list[str]
) -> None:
    def dataset(order: str, train_samples: int) -> BlendedDataset:
        return BlendedDataset(
            sets, [1, 1, 1], order=order, seq_length=8, seed=1, train_samples=train_samples, rules=DocumentRules()
        )  # fmt: skip

    for order, count in (("permuted", 0), ("megatron", 1)):
        usable(saved_at(dataset(order, 100), 40), dataset(order, 200).record, 40)
        assert len(said) == count
    assert "(train_samples 100 → 200)" in said[0]
    assert math.isclose(sum(dataset("megatron", 100).weights), 1)
