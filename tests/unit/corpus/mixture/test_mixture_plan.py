"""Categories, overrides, caps, floors and stages, each in figures that a person can check."""

import json
import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mixture_tables import RECIPES, both, counted, planned, tables

from megatron_ext.config.load import load_section
from megatron_ext.corpus.mixture.chart import as_html
from megatron_ext.corpus.mixture.config import MixtureConfig
from megatron_ext.corpus.mixture.plan import Budget, make_plan, whole
from megatron_ext.corpus.mixture.sets import CountedSets, MixtureSet
from megatron_ext.corpus.mixture.summary import (
    as_json,
    as_text,
    category_groups,
    most_repeated,
    tier_groups,
    warnings,
)
from megatron_ext.errors import CorpusError

TIERS = {"unit": "tokens", "thresholds": {"large": 1000, "small": 100}}
TWO = both(counted([100, 300]), counted([50, 150], "code", "c"))


def test_without_rules_everything_is_read_once() -> None:
    plan = planned(counted([100, 300]))
    assert (plan.tokens.tolist(), plan.samples) == ([100, 300], 400)


def test_category_shares_hold_whatever_there_is() -> None:
    rules = {"code": {"share": 0.611}, "mono": {"rule": {"temperature": {"alpha": 0.5}}}}
    plan = planned(TWO, 10_000, categories=rules)
    root = 3**0.5
    expected = [3890 / (1 + root), 3890 * root / (1 + root), 6110 / 4, 6110 * 3 / 4]
    assert np.abs(plan.tokens - expected).max() <= 1
    assert [group.share for group in category_groups(plan)] == pytest.approx([0.389, 0.611])
    left_out = planned(TWO, 400, categories={"code": {"share": 0}, "mono": {}})
    assert left_out.tokens.tolist() == [100, 300, 0, 0]
    assert left_out.unread() == {"left out by the mixture": [2, 3]}


def test_what_the_cap_spills_stays_in_its_category() -> None:
    rules = {"rule": {"temperature": {"alpha": 0.001}}, "max_epochs": 4}
    plan = planned(TWO, 1200, categories={"code": {"share": 0.5}, "mono": {"share": 0.5}}, **rules)
    assert plan.tokens.tolist() == pytest.approx(
        [300, 300, 200, 400], abs=2
    )  # 300 of 50 are more than 4 times


def test_a_floor_lifts_what_is_read_and_not_what_is_left_out() -> None:
    sets = counted([10_000, 2000, 200, 50])
    plan = planned(sets, 10_000, min_share=0.1, tiers=TIERS)
    assert plan.tokens[2:].tolist() == [1000, 0]
    assert plan.tokens[:2].tolist() == pytest.approx([7500, 1500])
    capped = planned(sets, 10_000, min_share=0.1, max_epochs=2, tiers=TIERS)
    assert capped.tokens[2] == 400  # what it holds twice is less than the floor
    assert "max_epochs keeps 1 sets below min_share" in warnings(capped)[0]


def test_overrides_are_fixed_and_the_rule_divides_the_rest() -> None:
    sets = counted([1000, 1000, 2000, 10])
    overrides = {"l0": {"share": 0.05}, "l1": {"epochs": 1.5}, "mono/l3": {"tokens": 500}}
    plan = planned(sets, 10_000, overrides=overrides, max_epochs=10, min_share=0.1, tiers=TIERS)
    assert plan.tokens.tolist() == [500, 1500, 7500, 500]  # l3 below the last tier, 50 times: it is asked for
    assert planned(sets, 100, overrides={"l0": {"tokens": 0}, "l1": {"share": 0}}).tokens[:2].tolist() == [
        0,
        0,
    ]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(2, 10**7), min_size=2, max_size=30),
    st.floats(1, 20),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0.1, 1),
)
def test_caps_and_floors_hold_and_shares_add_up(
    tokens: list[int], epochs: float, part: float, floor: float, alpha: float
) -> None:
    budget = max(round(part * epochs * sum(tokens)), 1)
    least = max(floor / len(tokens), 1e-6)
    rules = {"rule": {"temperature": {"alpha": alpha}}, "max_epochs": epochs, "min_share": least}
    plan = planned(counted(tokens), min(budget, int(epochs * sum(tokens))), **rules)
    cap = epochs * plan.available
    assert plan.tokens.sum() == plan.budget.tokens
    assert (plan.tokens <= cap + 1).all()
    assert (plan.tokens >= np.minimum(least * plan.tokens.sum(), cap) - 1).all()


def test_stages_inherit_what_they_do_not_say_and_caps_count_all_of_them() -> None:
    stages = [
        {"name": "warm-in", "overrides": {"l0": {"tokens": 150}}},
        {"name": "main", "from_tokens": 200},
        {"name": "anneal", "from_fraction": 0.8, "rule": {"temperature": {"alpha": 0.001}}},
    ]
    plan = planned(counted([100, 300, 600]), 1000, max_epochs=2, stages=stages)
    assert [(s.name, s.from_samples, s.samples) for s in plan.stages] == [
        ("warm-in", 0, 200),
        ("main", 200, 600),
        ("anneal", 800, 200),
    ]
    warm_in, main, anneal = (stage.tokens.tolist() for stage in plan.stages)
    assert warm_in == pytest.approx([150, 50 / 3, 100 / 3], abs=1)
    assert main == pytest.approx([50, 550 / 3, 1100 / 3], abs=1)  # l0 is through with its two epochs
    assert anneal == pytest.approx([0, 100, 100], abs=1)
    assert plan.epochs[0] == 2
    assert "stage anneal: from sample 800, 200 samples, 2 sets" in as_text(plan)


def test_whole_tokens_add_up() -> None:
    amounts = np.random.default_rng(0).random(1000) * 100
    assert whole(amounts).sum() == round(amounts.sum())
    assert np.abs(whole(amounts) - amounts).max() < 1


def test_the_plan_says_what_is_never_seen_and_what_is_repeated() -> None:
    sets = CountedSets(
        (*counted([4000, 1500, 120, 30, 1]).sets, MixtureSet("mono", "idle", 500, 500)), "tokens"
    )
    rates = {"large": 2, "small": 0}
    tier_rule = {"tier_rates": {"rates": rates, "labels": {"l2": 0.4}}}
    plan = planned(sets, seq_length=100, rule=tier_rule, tiers=TIERS, warn_epochs=1.5)
    assert plan.unread() == {
        "less than one sample": [2],
        "below the last tier": [3],
        "no text": [4],
        "left out by the mixture": [5],
    }
    assert most_repeated(plan)[:2] == [0, 1]
    assert "2 sets are read more than 1.5 times" in warnings(plan)[0]
    assert {group.name: (group.sets, group.read) for group in tier_groups(plan)} == {
        "large": (2, 2),
        "small": (2, 1),
        "below the last tier": (2, 0),
    }
    record = json.loads(as_json(plan))
    assert sum(one["tokens"] for one in record["sets"]) == record["tokens"] == 11_048
    assert sum(one["share"] for one in record["sets"]) == pytest.approx(1)
    assert record["never_seen"]["less than one sample"] == ["mono/l2"]
    assert record["mixture"]["rule"] == {"tier_rates": {"rates": rates, "labels": {"l2": 0.4}}}
    text = as_text(plan, every_set=True)
    assert "never seen, below the last tier: 1 sets: mono/l3" in text


@pytest.mark.parametrize("name", tables())
def test_the_chart_has_a_point_for_each_set(name: str) -> None:
    sets = tables()[name]
    plan = make_plan(sets, load_section(RECIPES / "mixture.yaml", MixtureConfig), Budget(None, 4096))
    page = as_html(plan)
    titles = re.findall(r"<circle cx='([\d.]+)' cy='([\d.]+)'[^>]*><title>([^ ]+) ", page)
    assert Counter(title for _, _, title in titles) == Counter(one.name for one in sets.sets if one.tokens)
    across = {title: float(x) for x, _, title in titles}
    ordered = sorted((one for one in sets.sets), key=lambda one: one.tokens)
    assert all(across[a.name] <= across[b.name] for a, b in pairwise(ordered))
    assert "src=" not in page  # nothing is loaded from elsewhere
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ({"overrides": {"l_0": {"share": 0.1}}}, r"overrides.l_0: there is no l_0; did you mean l0"),
        (
            {"overrides": {"l0": {"share": 0.9}, "mono/l0": {"epochs": 1}}},
            "mono/l0: mono/l0 has another override",
        ),
        (
            {"overrides": {"l0": {"share": 0.9}, "l1": {"share": 0.2}}},
            "the mixture: overrides read 1,100 .* of 1,000",
        ),
        (
            {"max_epochs": 1},
            "1,000 tokens are to be read, and max_epochs allows 600; raise it, or lower the budget",
        ),
        ({"min_share": 0.3}, "min_share asks 1,200 for its 4 sets"),
        ({"categories": {"mono": {}}}, r"categories: code is in the corpus \(2 sets\) and has no entry"),
        ({"categories": {"mono": {}, "code": {}}}, "mono and code have no share"),
        (
            {"categories": {"mono": {"share": 0.5}, "code": {"share": 0.4}}},
            r"add up to 90.0000%; leave one out",
        ),
        ({"categories": {"mono": {"share": 0.9}, "code": {"share": 0.4}}}, "add up to 130"),
        (
            {"categories": {"mono": {}, "code": {"share": 0.1}, "cod": {"share": 0}}},
            "no cod; did you mean code",
        ),
        (
            {"rule": {"tier_rates": {"rates": {"large": 1}}}},
            "rule.tier_rates.rates: the mixture has no tiers",
        ),
        (
            {"tiers": TIERS, "rule": {"tier_rates": {"rates": {"large": 1, "smal": 2}, "labels": {"l9": 1}}}},
            r"rates: small has none.*\n.*rates.smal: there is no smal; did you mean small.*\n.*labels.l9",
        ),
        (
            {"stages": [{"name": "a"}, {"name": "b", "from_tokens": 2000}]},
            "stage a|stage b: would read no sample",
        ),
        (
            {"categories": {"mono": {}, "code": {"share": 0}}, "overrides": {"c0": {"share": 0.1}}},
            "category with share 0",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(rules: dict[str, object], told: str) -> None:
    with pytest.raises(CorpusError, match=told):
        planned(TWO, 1000, **rules)


def test_a_label_in_two_categories_wants_the_category() -> None:
    with pytest.raises(CorpusError, match="several categories; write one of mono/l0, book/l0"):
        planned(both(counted([10]), counted([10], "book")), 10, overrides={"l0": {"share": 0.1}})


def test_stages_want_a_budget_and_whitespace_tiers_want_whitespace_tokens() -> None:
    with pytest.raises(CorpusError, match="a mixture with stages needs one"):
        planned(TWO, None, stages=[{"name": "a"}, {"name": "b", "from_fraction": 0.5}])
    uncounted = CountedSets((MixtureSet("mono", "eng_Latn", 10),), "tokens")
    with pytest.raises(CorpusError, match=r"mono/eng_Latn were not counted; plan from corpus\.json"):
        planned(uncounted, 10, tiers={"unit": "whitespace_tokens", "thresholds": {"all": 0}})
