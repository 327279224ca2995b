"""Rules against the published formulas, and against figures of the official token table where it is there."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mixture_tables import OFFICIAL, RECIPES, counted, planned, tables

from megatron_ext.config.load import load_section
from megatron_ext.corpus.mixture.config import MixtureConfig
from megatron_ext.corpus.mixture.plan import Budget, Plan, make_plan
from megatron_ext.corpus.mixture.sets import CountedSets
from megatron_ext.corpus.mixture.summary import category_groups, tier_groups, warnings
from megatron_ext.corpus.mixture.table import Columns, read_table

TABLES = tables()
TIERS = load_section(RECIPES / "tiers.yaml", MixtureConfig).model_dump()["tiers"]
sizes = st.lists(st.integers(2, 10**10), min_size=1, max_size=40)


def shares(plan: Plan) -> list[float]:
    return [100 * group.share for group in tier_groups(plan) if group.name != "below the last tier"]


@pytest.mark.skipif(not OFFICIAL.exists(), reason="the official token table is not here")
@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"proportional": {}}, (58.46, 37.05, 3.70, 0.65, 0.13)),
        ({"temperature": {"alpha": 0.7}}, (44.59, 42.94, 8.19, 3.16, 1.12)),
        ({"temperature": {"alpha": 0.3}}, (19.59, 34.74, 15.67, 17.22, 12.79)),
        ({"unimax": {"epochs": 4}}, (21.67, 60.41, 14.80, 2.60, 0.53)),
    ],
)
def test_shares_of_tiers_on_the_official_table(rule: dict[str, object], expected: tuple[float, ...]) -> None:
    plan = planned(read_table(OFFICIAL, Columns()), None, 4096, rule=rule, tiers=TIERS)
    # Two digits are given, and 58.465 and 37.055 lie between two of them.
    assert shares(plan) == pytest.approx(expected, abs=0.0055)
    assert plan.tokens.sum() == 74_255_415_452
    if "temperature" in rule and rule["temperature"] == {"alpha": 0.3}:
        assert round(plan.epochs.max()) == 285
    if "unimax" in rule:
        assert plan.epochs.max() == pytest.approx(4)


@pytest.mark.skipif(not OFFICIAL.exists(), reason="the official token table is not here")
def test_the_proposed_rates_on_the_official_table() -> None:
    sets = read_table(OFFICIAL, Columns())
    plan = make_plan(sets, load_section(RECIPES / "mixture.yaml", MixtureConfig), Budget(None, 4096))
    assert plan.tokens.sum() / 1e9 == pytest.approx(76.3, abs=0.05)
    tiers = {group.name: group for group in tier_groups(plan)}
    assert [group.read for group in tiers.values()] == [27, 79, 68, 162, 210, 0]
    assert tiers["medium"].available == pytest.approx(2.747e9, rel=1e-3)
    english = next(i for i, one in enumerate(sets.sets) if one.label == "eng_Latn")
    assert plan.epochs[english] == pytest.approx(0.1)


@pytest.mark.parametrize("table", TABLES)
def test_the_second_generation_s_shares_around_the_rates_of_the_tiers(table: str) -> None:
    categories = {"instruction": 0.168, "code": 0.221, "paper": 0.195, "book": 0.026}
    others = [counted([10**9, 10**10], name, name) for name in categories]
    sets = CountedSets((*TABLES[table].sets, *(one for other in others for one in other.sets)), "tokens")
    config = load_section(RECIPES / "mixture_second_generation.yaml", MixtureConfig)
    plan = make_plan(sets, config, Budget(200e9, 4096))
    expected = {"mono": 1 - sum(categories.values()), **categories}
    found = {group.name: group.share for group in category_groups(plan)}
    assert found == pytest.approx(expected, rel=1e-6)
    assert found["mono"] == pytest.approx(0.389, abs=0.0011)  # as published; the five add up to 99.9 %
    alone = make_plan(
        TABLES[table], load_section(RECIPES / "mixture.yaml", MixtureConfig), Budget(78e9, 4096)
    )
    np.testing.assert_allclose(plan.tokens[: len(alone.tokens)], alone.tokens, rtol=1e-4, atol=1)


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("alpha", [1.0, 0.7, 0.3])
def test_temperature_is_the_closed_formula(table: str, alpha: float) -> None:
    plan = planned(TABLES[table], 1e11, rule={"temperature": {"alpha": alpha}}, tiers=TIERS)
    n = plan.available.astype(float) * (plan.available >= 1e5)
    expected = 1e11 * n**alpha / (n[n > 0] ** alpha).sum() * (n > 0)
    assert np.abs(plan.tokens - expected).max() <= 1


@pytest.mark.parametrize("table", TABLES)
def test_tier_rates_are_epochs_until_a_budget_scales_them(table: str) -> None:
    rates = {"high": 0.5, "medium-high": 1, "medium": 5, "medium-low": 20, "low": 50}
    rule = {"tier_rates": {"rates": rates}}
    plan = planned(TABLES[table], None, rule=rule, tiers=TIERS)
    scaled = planned(TABLES[table], 2.0 * int(plan.tokens.sum()), rule=rule, tiers=TIERS)
    for group in tier_groups(plan)[:-1]:
        assert group.epochs == pytest.approx(rates[group.name], rel=1e-6)
    read = plan.tokens > 0
    assert scaled.tokens[read] / plan.tokens[read] == pytest.approx(2, rel=1e-4)


@settings(max_examples=200, deadline=None)
@given(sizes, st.floats(0.1, 20), st.floats(0.01, 1))
def test_unimax_is_even_within_n_epochs(tokens: list[int], epochs: float, part: float) -> None:
    """What the algorithm is for: all sets read equally, or N times where they are too small for that."""
    budget = max(part * epochs * sum(tokens), 1.0)
    plan = planned(counted(tokens), budget, rule={"unimax": {"epochs": epochs}})
    full = plan.tokens >= epochs * plan.available - 1
    assert (plan.tokens <= epochs * plan.available + 1).all()
    rest = plan.tokens[~full]
    assert rest.size == 0 or (np.ptp(rest) <= 2 and (plan.tokens[full] <= rest.max() + 2).all())
    assert abs(plan.tokens.sum() - budget) < 0.5 + 1e-6 * budget


def test_unimax_says_when_the_budget_is_more_than_n_epochs_of_everything() -> None:
    plan = planned(counted([100, 300]), 1600, rule={"unimax": {"epochs": 2}}, warn_epochs=100)
    assert plan.epochs.tolist() == [4, 4]  # more than N, in proportion to what UniMax allows
    assert ["800" in line and "1,600" in line for line in warnings(plan)] == [True]
    assert warnings(planned(counted([100, 300]), 800, rule={"unimax": {"epochs": 2}})) == []


@settings(max_examples=100, deadline=None)
@given(sizes, st.floats(0.01, 1), st.integers(1, 10**12))
def test_amounts_add_up_to_the_budget(tokens: list[int], alpha: float, budget: int) -> None:
    plan = planned(counted(tokens), budget, rule={"temperature": {"alpha": alpha}})
    assert plan.tokens.sum() == budget
    order = np.argsort(plan.available, kind="stable")
    assert (np.diff(plan.tokens[order]) >= -1).all()  # the larger set gets the larger amount
