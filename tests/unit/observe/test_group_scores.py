"""Which sets a group has, and validation by group against a direct computation from each token's loss."""

import numpy as np
import pytest

from megatron_ext.observe.groups import group_sets
from megatron_ext.observe.metrics import SetLoss, summarise_validation

NAMES = ["eng", "web/deu", "books/deu", "fin", "swa"]
GROUPS: list[dict[str, str]] = [
    {"tier": "high"},
    {"label": "deu", "tier": "high"},
    {"label": "deu", "category": "book"},
    {},
    {"tier": "low"},
]


def test_a_label_is_the_name_of_its_set_unless_it_says_another() -> None:
    assert group_sets(NAMES, GROUPS, per_label=None) == {
        "label": {"eng": [0], "deu": [1, 2], "fin": [3], "swa": [4]},
        "tier": {"high": [0, 1], "low": [4]},
        "category": {"book": [2]},
    }
    assert list(group_sets(NAMES, GROUPS, per_label=False)) == ["tier", "category"]


def test_labels_are_counted_where_any_set_has_groups_or_on_demand() -> None:
    assert group_sets(["a", "b"], [{}, {}], per_label=None) == {}
    assert group_sets(["a", "b"], [{}, {}], per_label=True) == {"label": {"a": [0], "b": [1]}}


def test_validation_of_a_group_is_over_its_tokens() -> None:
    """A group with a set of unknown bytes has no bits per byte; one whose sets read no token is left out."""
    random = np.random.default_rng(0)
    sizes, text_bytes = [700, 90, 40, 0, 55], [3100, 400, 130, 10, None]
    tokens = [random.uniform(1, 9, size) for size in sizes]
    record = summarise_validation(
        {
            name: SetLoss(loss_sum=float(own.sum()), tokens=own.size, text_bytes=size)
            for name, own, size in zip(NAMES, tokens, text_bytes, strict=True)
        },
        group_sets(NAMES, GROUPS, per_label=None),
        iteration=0,
        consumed_samples=0,
        consumed_tokens=0,
    )
    assert {dimension: list(scores) for dimension, scores in record.per_group.items()} == {
        "label": ["eng", "deu", "swa"],
        "tier": ["high", "low"],
        "category": ["book"],
    }
    high = np.concatenate(tokens[:2])
    score = record.per_group["tier"]["high"]
    assert score.lm_loss == pytest.approx(high.mean())
    assert score.perplexity == pytest.approx(np.exp(high.mean()))
    assert score.bits_per_byte == pytest.approx((high / np.log(2)).sum() / 3500)
    assert score.tokens == 790
    german = np.concatenate(tokens[1:3])
    assert record.per_group["label"]["deu"].lm_loss == pytest.approx(german.mean())
    assert record.per_group["tier"]["low"].bits_per_byte is None
    assert record.to_dict()["per_group"]["category"]["book"]["tokens"] == 40  # type: ignore[index]
