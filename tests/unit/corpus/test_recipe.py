"""The EMMA-500 recipe as it is shipped: manifest, mixture and run belong together, and its figures are the table's."""

from pathlib import Path

import pytest

from megatron_ext.config.load import load_run_config, load_section
from megatron_ext.corpus.counts import CATEGORIES
from megatron_ext.corpus.manifest import read_manifest
from megatron_ext.corpus.mixture.config import MixtureConfig

RECIPE = Path(__file__).parents[3] / "configs/recipes/emma500"


@pytest.mark.parametrize(
    ("folder", "name"), [(RECIPE, "emma500"), (RECIPE / "demo", "udhr")], ids=["full", "demo"]
)
def test_the_run_reads_what_the_manifest_writes_with_the_same_tokenizer(folder: Path, name: str) -> None:
    manifest, run = read_manifest(folder / "corpus.yaml"), load_run_config([folder / "train.yaml"])
    assert manifest.name == name
    for entries, part in ((run.data.train, "train"), (run.data.valid, "valid")):
        assert [entry.path for entry in entries] == [f"{manifest.output}/data/{part}/*/*_text_document"]
    assert manifest.tokenizer is not None
    assert (manifest.tokenizer.type, manifest.tokenizer.model) == (run.tokenizer.type, run.tokenizer.model)
    assert manifest.tokenizer.append_eod


def test_a_planned_blend_takes_the_place_of_the_run_s_own_data(tmp_path: Path) -> None:
    blend = tmp_path / "blend.yaml"
    groups = "{label: swh_Latn, tier: low, category: mono}"
    blend.write_text(f"data:\n  train:\n    - {{path: a, tokens: 5000, groups: {groups}}}\n")
    run = load_run_config([RECIPE / "train.yaml", blend])
    assert [(entry.path, entry.tokens) for entry in run.data.train] == [("a", 5000)]
    assert run.data.train[0].groups["tier"] == "low"


def test_the_run_is_the_paper_s() -> None:
    run = load_run_config([RECIPE / "train.yaml"])
    assert run.training.tokens_per_iteration * run.training.train_iters == 4096 * 4096 * 12_000
    assert (run.launch.world_size, run.optimizer.lr_warmup_iters) == (256, 500)
    assert run.optimizer.lr_decay_style == "cosine"


def test_the_second_generation_s_shares_cover_the_template_s_categories() -> None:
    mixture = load_section(RECIPE / "mixture_second_generation.yaml", MixtureConfig)
    sources = read_manifest(RECIPE / "corpus.yaml").sources
    assert set(mixture.categories) == {source.category for source in sources} <= set(CATEGORIES)
    published = {"instruction": 16.8, "code": 22.1, "paper": 19.5, "book": 2.6}
    assert {name: one.share for name, one in mixture.categories.items() if one.share is not None} == {
        name: pytest.approx(percent / 100) for name, percent in published.items()
    }


def test_the_demonstration_has_the_tiers_of_the_recipe() -> None:
    full, demo = (
        load_section(folder / "mixture.yaml", MixtureConfig) for folder in (RECIPE, RECIPE / "demo")
    )
    assert full.tiers is not None
    assert demo.tiers is not None
    assert list(full.tiers.thresholds) == list(demo.tiers.thresholds)
