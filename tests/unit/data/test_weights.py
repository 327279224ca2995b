"""Shares of samples, by closed formula, for each way to say how much is read."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from megatron_ext.config.section_data import DataConfig
from megatron_ext.data.build import Datasets, build_datasets
from megatron_ext.errors import DataError

WriteSet = Callable[..., Path]
SEQ_LENGTH = 8


def build(train: list[dict[str, object]], train_samples: int = 1000, **options: object) -> Datasets:
    config = DataConfig.model_validate({"train": train, **options})
    return build_datasets(config, seq_length=SEQ_LENGTH, seed=1, train_samples=train_samples, eod_id=3)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the plan says."""
    found: list[str] = []
    monkeypatch.setattr(
        "megatron_ext.data.build.logger.info",
        lambda text, *values: found.append(text % values if values else text),
    )
    return found


@pytest.fixture
def corpus(write_set: WriteSet, tmp_path: Path) -> Path:
    for name, size in (("short", 10), ("odd", 100), ("even", 801)):
        write_set(name, [size])
    return tmp_path


def test_tokens_become_samples_by_what_a_sample_trains(corpus: Path, lines: list[str]) -> None:
    """10 tokens are 9 labels in 2 windows, 100 are 99 in 13, 801 are 800 in 100."""
    train = build(
        [
            {"path": f"{corpus}/short", "tokens": 900},
            {"path": f"{corpus}/odd", "tokens": 990},
            {"path": f"{corpus}/even", "tokens": 1600},
        ],
        train_samples=530,
    ).train
    samples = np.array([900 * 2 / 9, 990 * 13 / 99, 1600 / 8])
    assert samples.tolist() == [200, 130, 200]
    assert train.weights == pytest.approx(samples / 530)
    assert train.epochs(530) == pytest.approx([100, 10, 2])
    assert "epochs of a set: 2.00 to 100.00" in lines[1]
    assert not [line for line in lines if "asks for" in line]
    # And so many labels are really trained.
    ids, numbers = train.blend().draw(530)
    _, valid = train.gather(ids, numbers)
    trained = [int((valid[ids == index] - 1).sum()) for index in range(3)]
    assert trained == [900, 990, 1600]


def test_in_megatron_order_every_sample_is_full(corpus: Path) -> None:
    entries = [
        {"path": f"{corpus}/short", "tokens": 100},
        {"path": f"{corpus}/even", "tokens": 300},
    ]
    assert build(entries, train_samples=50, order="megatron").train.weights == pytest.approx([0.25, 0.75])


def test_samples_are_read_as_they_are(corpus: Path, lines: list[str]) -> None:
    entries = [{"path": f"{corpus}/short", "samples": 30}, {"path": f"{corpus}/even", "samples": 70}]
    train = build(entries, train_samples=100).train
    assert np.bincount(train.blend().draw(100)[0]).tolist() == [30, 70]
    assert not [line for line in lines if "asks for" in line]


def test_what_does_not_fit_the_run_is_scaled_and_said(corpus: Path, lines: list[str]) -> None:
    entries = [{"path": f"{corpus}/short", "samples": 30}, {"path": f"{corpus}/even", "samples": 70}]
    train = build(entries, train_samples=250).train
    assert np.bincount(train.blend().draw(250)[0]).tolist() == [75, 175]
    assert lines[-1] == (
        "  data.train asks for 100 samples, and the run has 250 for it: each set gets 2.5 of what it asks for"
    )


@pytest.mark.parametrize("unit", ["tokens", "samples"])
def test_an_amount_for_a_pattern_is_spread_by_size(corpus: Path, write_set: WriteSet, unit: str) -> None:
    write_set("many/a", [81])
    write_set("many/b", [321])
    train = build(
        [{"path": f"{corpus}/many/*", unit: 960}, {"path": f"{corpus}/even", unit: 1600}], blend_alpha=0.5
    ).train
    roots = np.sqrt([81, 321])
    spread = [*(960 * roots / roots.sum()), 1600]
    assert train.weights == pytest.approx(np.array(spread) / 2560)


@pytest.mark.parametrize("unit", ["weight", "tokens", "samples"])
def test_zero_leaves_an_entry_out(corpus: Path, lines: list[str], unit: str) -> None:
    train = build([{"path": f"{corpus}/short", unit: 0}, {"path": f"{corpus}/even", unit: 10}]).train
    assert train.names == ("even",)
    assert lines[0] == f"data.train[0]: {corpus}/short has {unit} 0 and is not read"
    with pytest.raises(DataError, match=f"data.train: every {unit} is 0"):
        build([{"path": f"{corpus}/short", unit: 0}])


def test_amounts_of_two_kinds_are_refused(corpus: Path) -> None:
    with pytest.raises(DataError, match=r"data.train: has both weight and tokens"):
        build([{"path": f"{corpus}/short", "weight": 1}, {"path": f"{corpus}/even", "tokens": 10}])
    with pytest.raises(DataError, match=r"data.train\[1\]: has no samples"):
        build([{"path": f"{corpus}/short", "samples": 1}, {"path": f"{corpus}/even"}])


def test_stages_have_lists_and_units_of_their_own(corpus: Path, lines: list[str]) -> None:
    datasets = build(
        [{"path": f"{corpus}/odd"}, {"path": f"{corpus}/even"}],
        train_samples=1000,
        stages=[
            {"from_samples": 600, "train": [
                {"path": f"{corpus}/odd", "samples": 300}, {"path": f"{corpus}/short", "samples": 100},
            ]},
            {"from_fraction": 0.9, "train": [{"path": f"{corpus}/short", "weight": 1}]},
        ],
        valid=[{"path": f"{corpus}/even"}],
    )  # fmt: skip
    train = datasets.train
    assert train.names == ("odd", "even", "short")
    assert [stage.start for stage in train.stages] == [0, 600, 900]
    assert train.stages[0].weights == pytest.approx([100 / 901, 801 / 901, 0])
    assert train.stages[1].weights == pytest.approx([0.75, 0, 0.25])
    assert train.stages[2].weights.tolist() == [0, 0, 1]
    assert train.samples_of_stages(1000).tolist() == [600, 300, 100]
    assert train.samples_of_stages(700).tolist() == [600, 100, 0]
    expected = [(600 * 100 / 901 + 225) / 13, 600 * 801 / 901 / 100, (75 + 100) / 2]
    assert train.epochs(1000) == pytest.approx(expected)
    ids, _ = train.blend().draw(1000)
    assert np.bincount(ids[600:900], minlength=3).tolist() == [225, 0, 75]
    assert datasets.valid is not None
    assert datasets.valid.names == ("even",)
    assert lines[2].startswith("  from sample 0, for 600: 2 sets; largest shares: even 88.90%")
    assert lines[3] == "  from sample 600, for 300: 2 sets; largest shares: odd 75.00%, short 25.00%"
    assert lines[4] == (
        "  data.stages[0].train asks for 400 samples, and the run has 300 for it: each set gets 0.75 of what it "
        "asks for"
    )
    assert lines[5] == "  from sample 900, for 100: 1 set; largest shares: short 100.00%"


def test_a_stage_may_change_the_exponent_alone(corpus: Path) -> None:
    everything = [{"path": f"{corpus}/*"}]
    train = build(everything, stages=[{"from_samples": 5, "blend_alpha": 0.5, "train": everything}]).train
    roots = np.sqrt([801, 100, 10])
    assert train.names == ("even", "odd", "short")
    assert train.stages[0].weights == pytest.approx(np.array([801, 100, 10]) / 911)
    assert train.stages[1].weights == pytest.approx(roots / roots.sum())


def test_a_split_holds_out_what_any_stage_trains_on(write_set: WriteSet, tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_set(name, [40] * 10)
    datasets = build(
        [{"path": f"{tmp_path}/first"}],
        split="80,20,0",
        stages=[{"from_samples": 5, "train": [{"path": f"{tmp_path}/second"}]}],
    )
    assert datasets.valid is not None
    assert datasets.valid.names == ("first", "second")
    assert datasets.train.samples_per_epoch.tolist() == [40, 40]


def test_megatron_order_has_no_stages(corpus: Path) -> None:
    stages = [{"from_samples": 5, "train": [{"path": f"{corpus}/even"}]}]
    with pytest.raises(DataError, match="megatron-core has none"):
        build([{"path": f"{corpus}/odd"}], order="megatron", stages=stages)
