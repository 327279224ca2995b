"""Validation scores against a direct computation from each token's loss."""

import json
import math

import numpy as np
import pytest

from megatron_ext.errors import DataError
from megatron_ext.observe.metrics import SetLoss, TrainRecord, summarise_validation
from megatron_ext.observe.throughput import Speed


def test_validation_equals_the_mean_over_all_tokens() -> None:
    random = np.random.default_rng(0)
    losses = {name: random.uniform(1, 9, size) for name, size in {"eng_Latn": 700, "tam_Taml": 90}.items()}
    text_bytes = {"eng_Latn": 3100, "tam_Taml": 800}
    record = summarise_validation(
        {
            name: SetLoss(loss_sum=float(one.sum()), tokens=one.size, text_bytes=text_bytes[name])
            for name, one in losses.items()
        },
        {},
        iteration=7,
        consumed_samples=56,
        consumed_tokens=7168,
    )
    together = np.concatenate(list(losses.values()))
    assert record.lm_loss == pytest.approx(together.mean())
    assert record.perplexity == pytest.approx(np.exp(together.mean()))
    assert record.bits_per_byte == pytest.approx((together / np.log(2)).sum() / 3900)
    assert record.tokens == 790
    tamil = record.per_dataset["tam_Taml"]
    assert tamil.lm_loss == pytest.approx(losses["tam_Taml"].mean())
    assert tamil.bits_per_byte == pytest.approx((losses["tam_Taml"] / np.log(2)).sum() / 800)
    assert (tamil.tokens, record.iteration) == (90, 7)


def test_one_byte_a_token_at_uniform_loss_is_eight_bits_per_byte() -> None:
    assert SetLoss(loss_sum=50 * math.log(256), tokens=50, text_bytes=50).bits_per_byte == pytest.approx(8)


def test_unknown_bytes_of_one_set_leave_the_overall_bits_unknown() -> None:
    losses = {
        "a": SetLoss(loss_sum=6.0, tokens=2, text_bytes=9),
        "b": SetLoss(loss_sum=8.0, tokens=2, text_bytes=None),
        "unread": SetLoss(loss_sum=0.0, tokens=0, text_bytes=5),
    }
    record = summarise_validation(losses, {}, iteration=0, consumed_samples=0, consumed_tokens=0)
    assert record.bits_per_byte is None
    assert record.per_dataset["a"].bits_per_byte is not None
    assert record.per_dataset["b"].bits_per_byte is None
    assert list(record.per_dataset) == ["a", "b"]


def test_a_diverged_loss_is_reported_and_nothing_overflows() -> None:
    losses = {"a": SetLoss(loss_sum=1e6, tokens=1, text_bytes=1)}
    record = summarise_validation(losses, {}, iteration=0, consumed_samples=0, consumed_tokens=0)
    assert math.isinf(record.perplexity)


def test_reading_no_token_is_an_error() -> None:
    with pytest.raises(DataError, match="read no token"):
        summarise_validation({}, {}, iteration=0, consumed_samples=0, consumed_tokens=0)


def test_records_carry_the_agreed_keys() -> None:
    speed = Speed(0.5, 1000.0, 40.0, None, "full attention")
    train = TrainRecord(
        iteration=1,
        consumed_samples=8,
        consumed_tokens=1024,
        lm_loss=9.0,
        grad_norm=1.0,
        learning_rate=1e-2,
        **vars(speed),
    )
    assert json.loads(json.dumps(train.to_dict())) == {
        "kind": "train",
        "iteration": 1,
        "consumed_samples": 8,
        "consumed_tokens": 1024,
        "skipped_iterations": 0,
        "lm_loss": 9.0,
        "grad_norm": 1.0,
        "learning_rate": 1e-2,
        "iteration_time_s": 0.5,
        "tokens_per_second_per_gpu": 1000.0,
        "model_tflops_per_gpu": 40.0,
        "mfu": None,
        "flop_convention": "full attention",
    }
    losses = {"a": SetLoss(loss_sum=6.0, tokens=2, text_bytes=9)}
    validation = summarise_validation(
        losses, {}, iteration=1, consumed_samples=8, consumed_tokens=1024
    ).to_dict()
    assert list(validation) == [
        "kind",
        "iteration",
        "consumed_samples",
        "consumed_tokens",
        "lm_loss",
        "perplexity",
        "bits_per_byte",
        "tokens",
        "per_dataset",
    ]
    assert json.loads(json.dumps(validation))["per_dataset"]["a"] == {
        "lm_loss": 3.0,
        "bits_per_byte": 6.0 / math.log(2) / 9,
        "tokens": 2,
    }
