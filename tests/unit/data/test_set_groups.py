"""Groups of sets from the ``data`` section on, and how much of each set was consumed, against counting."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from megatron_ext.config.batch_size import BatchSizes
from megatron_ext.config.section_data import DataConfig
from megatron_ext.data.build import Datasets, build_datasets
from megatron_ext.data.loader import TrainLoader
from megatron_ext.data.sampler import BatchSampler
from megatron_ext.errors import DataError

WriteSet = Callable[..., Path]
SEQ_LENGTH = 8


def build(**data: object) -> Datasets:
    config = DataConfig.model_validate(data)
    return build_datasets(config, seq_length=SEQ_LENGTH, seed=1, train_samples=100, eod_id=None)


@pytest.fixture
def corpus(write_set: WriteSet, tmp_path: Path) -> Path:
    for name, size in (("eng", 900), ("deu", 100), ("fra", 400)):
        write_set(f"web/{name}_text_document", [size // 10] * 10)
    write_set("books/eng_text_document", [600])
    return tmp_path


def test_every_set_of_a_pattern_has_the_groups_of_its_entry(corpus: Path) -> None:
    web, book = {"tier": "high", "category": "web"}, {"label": "eng_Latn", "category": "book"}
    datasets = build(
        train=[{"path": f"{corpus}/web/*", "groups": web}, {"path": f"{corpus}/books/*", "groups": book}],
        valid=[{"path": f"{corpus}/web/deu*", "groups": {"tier": "low"}}, {"path": f"{corpus}/books/*"}],
    )
    assert datasets.train.groups == (web, web, web, book)
    assert datasets.valid is not None
    assert datasets.valid.groups == ({"tier": "low"}, {})


def test_what_a_split_holds_out_keeps_its_groups(corpus: Path) -> None:
    datasets = build(train=[{"path": f"{corpus}/web/*", "groups": {"tier": "high"}}], split="80,20,0")
    assert datasets.valid is not None
    assert datasets.valid.groups == datasets.train.groups == ({"tier": "high"},) * 3


def test_a_set_needs_its_groups_in_one_stage_only(corpus: Path) -> None:
    plain = {"path": f"{corpus}/web/*"}
    grouped = {"path": f"{corpus}/web/*", "groups": {"tier": "high"}}
    for first, later in ((plain, grouped), (grouped, plain), (grouped, grouped)):
        train = build(train=[first], stages=[{"from_samples": 30, "train": [later]}]).train
        assert train.groups == ({"tier": "high"},) * 3


def test_a_set_with_other_groups_in_another_stage_is_named(corpus: Path) -> None:
    first = {"path": f"{corpus}/web/*", "groups": {"tier": "high"}}
    later = {"path": f"{corpus}/web/fra*", "groups": {"tier": "low"}}
    with pytest.raises(DataError, match=r"data\.stages\[0\]\.train\[0\]\.groups: fra has .*low.*high"):
        build(train=[first], stages=[{"from_samples": 30, "train": [later]}])


def test_consumed_samples_of_a_set_are_those_in_the_batches(corpus: Path) -> None:
    """Over two stages, a batch that grows and two ranks, asked for at every step and in one leap."""
    dataset = build(
        train=[{"path": f"{corpus}/web/*"}],
        stages=[
            {"from_samples": 30, "train": [{"path": f"{corpus}/books/*"}, {"path": f"{corpus}/web/deu*"}]}
        ],
    ).train
    loaders = [
        TrainLoader(dataset, BatchSampler(2, 12, rank, 2, BatchSizes(12, 4, 4, 24)), 1) for rank in range(2)
    ]
    batches = [loader.batches(0) for loader in loaders]
    position, counted = 0, np.zeros(4, dtype=np.int64)
    for _ in range(9):
        rows = np.concatenate([part.dataset_index for reader in batches for part in next(reader)])
        position += len(rows)
        counted += np.bincount(rows, minlength=4)
        assert loaders[0].consumed_by_set(position).tolist() == counted.tolist()
    assert (counted > 0).all()
    assert loaders[1].consumed_by_set(position).tolist() == counted.tolist()
