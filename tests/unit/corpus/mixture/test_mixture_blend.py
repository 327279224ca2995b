"""A plan's file in the data engine, and the simulation beside it."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from mixture_tables import RECIPES, counted, planned, tables

from megatron_ext.config.load import load_run_config, load_section
from megatron_ext.config.sections import RunConfig
from megatron_ext.corpus.mixture.blend_file import as_yaml, can_be_read, with_paths
from megatron_ext.corpus.mixture.config import MixtureConfig
from megatron_ext.corpus.mixture.plan import Budget, Plan, make_plan
from megatron_ext.corpus.mixture.sets import CountedSets, Dataset, MixtureSet, read_tokenised
from megatron_ext.corpus.mixture.simulate import blend_stages, simulate
from megatron_ext.data.build import build_datasets
from megatron_ext.data.indexed import IndexedDatasetWriter
from megatron_ext.errors import CorpusError

SEQ_LENGTH = 16
LENGTHS = {"eng_Latn": 2000, "deu_Latn": 1500, "swa_Latn": 777, "que_Latn": 333}
QUICKSTART = RECIPES.parents[1] / "runs/quickstart.yaml"
STAGES = [
    {"name": "warm-in", "overrides": {"swa_Latn": {"epochs": 0}}},
    {"name": "main", "from_fraction": 0.2},
    {"name": "anneal", "from_fraction": 0.85, "rule": {"temperature": {"alpha": 0.3}}},
]


@pytest.fixture
def corpus(tmp_path: Path) -> CountedSets:
    for part, size in (("train", 1), ("valid", 10)):
        (tmp_path / part).mkdir()
        for label, tokens in LENGTHS.items():
            with IndexedDatasetWriter(tmp_path / part / f"{label}_text_document", np.uint16) as writer:
                writer.add_documents(np.arange(tokens // size), np.array([tokens // size], dtype=np.int64))
    return read_tokenised(tmp_path)


def staged_plan(corpus: CountedSets) -> Plan:
    tiers = {"unit": "tokens", "thresholds": {"large": 500, "small": 0}}
    return planned(corpus, 400 * SEQ_LENGTH, SEQ_LENGTH, tiers=tiers, stages=STAGES)


def run_of(plan: Plan, folder: Path) -> RunConfig:
    (folder / "blend.yaml").write_text(as_yaml(plan), encoding="utf-8")
    (folder / "run.yaml").write_text(f"defaults: [{QUICKSTART}, blend.yaml]\n")
    steps = plan.samples // 16
    overrides = [
        f"training.seq_length={SEQ_LENGTH}",
        f"training.train_iters={steps}",
        "optimizer.lr_warmup_iters=2",
    ]
    return load_run_config([folder / "run.yaml"], overrides)


def test_the_loader_draws_what_the_plan_says_stage_by_stage(corpus: CountedSets, tmp_path: Path) -> None:
    plan = staged_plan(corpus)
    run = run_of(plan, tmp_path)
    built = build_datasets(
        run.data, seq_length=SEQ_LENGTH, seed=1, train_samples=run.training.train_samples, eod_id=None
    )
    drawn, _ = built.train.blend().draw(plan.samples)
    names = [built.train.names[index] for index in drawn]
    assert (
        [stage.start for stage in built.train.stages] == [s.from_samples for s in plan.stages] == [0, 80, 340]
    )
    for stage in plan.stages:
        counts = Counter(names[stage.from_samples : stage.from_samples + stage.samples])
        # A set of T tokens has ceil((T - 1) / length) windows an epoch, the last one padded.
        epochs = stage.tokens / plan.available
        windows = epochs * -(-(plan.available - 1) // SEQ_LENGTH)
        expected = stage.samples * windows / windows.sum()
        for one, samples in zip(corpus.sets, expected, strict=True):
            assert abs(counts[one.label] - samples) < 1, (stage.name, one.label)
    assert Counter(names[:80])["swa_Latn"] == 0
    assert dict(zip(built.train.names, built.train.groups, strict=True))["que_Latn"] == {
        "label": "que_Latn",
        "tier": "small",
        "category": "mono",
    }
    assert built.valid is not None
    assert [group["label"] for group in built.valid.groups] == list(built.valid.names)
    simulated = simulate(plan)
    paths, _ = blend_stages(plan)
    totals = {
        Path(path).name.removesuffix("_text_document"): n
        for path, n in zip(paths, simulated.drawn.sum(0), strict=True)
    }
    assert totals == Counter(names)


def test_the_simulation_draws_the_loader_s_order(corpus: CountedSets, tmp_path: Path) -> None:
    plan = staged_plan(corpus)
    run = run_of(plan, tmp_path)
    built = build_datasets(run.data, seq_length=SEQ_LENGTH, seed=1, train_samples=plan.samples, eod_id=None)
    _, stages = blend_stages(plan)
    for ours, theirs in zip(stages, built.train.stages, strict=True):
        assert ours.start == theirs.start
        np.testing.assert_array_equal(ours.weights, theirs.weights)  # to the bit: so the draws are the same


def test_the_file_names_groups_tokens_and_starts(corpus: CountedSets) -> None:
    plan = staged_plan(corpus)
    data = yaml.safe_load(as_yaml(plan))["data"]
    by_label = {entry["groups"]["label"]: entry for entry in data["train"]}
    assert set(by_label) == set(LENGTHS) - {"swa_Latn"}
    assert by_label["que_Latn"]["groups"] == {"label": "que_Latn", "tier": "small", "category": "mono"}
    assert [stage["from_samples"] for stage in data["stages"]] == [80, 340]
    for entries, stage in zip(
        [data["train"], *(one["train"] for one in data["stages"])], plan.stages, strict=True
    ):
        assert sum(entry["tokens"] for entry in entries) == stage.tokens.sum()
    assert len(data["valid"]) == 4


def test_a_set_of_several_files_is_read_evenly() -> None:
    parts = (Dataset("a", 100), Dataset("b", 300))
    sets = CountedSets((MixtureSet("mono", "x", 400, None, parts),), "tokens")
    data = yaml.safe_load(as_yaml(planned(sets, 1000)))["data"]
    assert [(entry["path"], entry["tokens"]) for entry in data["train"]] == [("a", 250), ("b", 750)]


@pytest.mark.parametrize("name", tables())
def test_every_step_of_a_run_is_within_a_sample_of_the_plan(name: str) -> None:
    config = load_section(RECIPES / "mixture.yaml", MixtureConfig)
    step = 4096
    budget = Budget(300.0 * step * 4096, 4096, step)
    plan = make_plan(with_paths(tables()[name], "{label}"), config, budget)
    simulated = simulate(plan)
    assert (simulated.samples, simulated.steps) == (300 * step, 300)
    assert 0 < simulated.deviation < 1
    assert simulated.drawn.sum() == plan.samples
    read = plan.tokens > 0
    assert np.abs(simulated.drawn[0] - plan.expected_samples[read]).max() < 1


def test_the_largest_deviation_is_the_one_that_counting_finds() -> None:
    plan = planned(with_paths(counted([600, 250, 150]), "{label}"), 3000, 1, stages=[{"name": "a"}])
    _, (stage,) = blend_stages(plan)
    counts, worst = np.zeros(3), 0.0
    for position in range(3000):  # megatron-core's rule, draw for draw
        counts[int(np.argmax(stage.weights * max(position, 1) - counts))] += 1
        if (position + 1) % 7 == 0 or position == 2999:
            worst = max(worst, np.abs(counts - (position + 1) * stage.weights).max())
    plan = make_plan(plan.counted, plan.config, Budget(3000.0, 1, 7))
    assert simulate(plan).deviation == pytest.approx(worst)


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("data/{lang}", "knows {label} and {category} only"),
        ("data/x", "two sets the same path"),
        ("{", "--path {"),
    ],
)
def test_a_wrong_pattern_of_paths(pattern: str, told: str) -> None:
    with pytest.raises(CorpusError, match=told):
        with_paths(counted([1, 2]), pattern)


def test_a_table_without_paths_gives_no_file() -> None:
    assert not can_be_read(planned(counted([10, 20])))
    assert can_be_read(planned(with_paths(counted([10, 20]), "{category}/{label}")))
