"""What one line of ``metrics.jsonl`` says: a training step, or a validation over all held-out sets."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

from megatron_ext.errors import DataError
from megatron_ext.observe.groups import Groups


@dataclass(frozen=True, kw_only=True)
class GroupLoss:
    """Training on one group of sets.

    Attributes:
        lm_loss: mean loss of a token of the group in nats, over the steps since the record before that has the group's
            dimension. Every save comes with a record of all dimensions: none is over steps before and after a resume.
        tokens: what that mean is over: labels of the group that the loss counts.
        consumed_tokens: of the group since the run began, counted as the record's: whole samples, padding included; by
            the present blend, which is the one that was read unless a resumed run changed what came before.
    """

    lm_loss: float
    tokens: int
    consumed_tokens: int


@dataclass(frozen=True, kw_only=True)
class TrainRecord:
    """State of training after ``iteration`` steps.

    Attributes:
        iteration: optimizer steps done.
        consumed_samples: sequences read so far; alone decides which come next.
        consumed_tokens: tokens read so far.
        skipped_iterations: steps until here whose fp16 gradients overflowed and which changed no weight.
        lm_loss: mean loss of this step's tokens in nats. Not an average over steps, so that a run that
            was stopped and resumed writes the same rows as one that was not.
        grad_norm: norm of all gradients before clipping.
        learning_rate: rate this step was taken with.
        iteration_time_s: mean seconds of a step since the record before.
        tokens_per_second_per_gpu: throughput of one device over the same steps.
        model_tflops_per_gpu: 1e12 model FLOP/s of one device in ``flop_convention``, without recomputation.
        mfu: share of the device's peak, 0 to 1; None where the peak is not known.
        flop_convention: how attention is counted; see ``megatron_ext.model.flops``.
        per_group: by dimension and value, of the groups that were read; see ``megatron_ext.observe.groups``.
    """

    kind: Literal["train"] = field(default="train", init=False)
    iteration: int
    consumed_samples: int
    consumed_tokens: int
    skipped_iterations: int = 0
    lm_loss: float
    grad_norm: float
    learning_rate: float
    iteration_time_s: float
    tokens_per_second_per_gpu: float
    model_tflops_per_gpu: float
    mfu: float | None
    flop_convention: str
    per_group: Mapping[str, Mapping[str, GroupLoss]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """The record as what a sink writes."""
        return _without_empty_groups(asdict(self))


@dataclass(frozen=True, kw_only=True)
class SetLoss:
    """Loss summed over the tokens read from one held-out set.

    Attributes:
        loss_sum: sum of the tokens' losses in nats.
        tokens: number of those tokens.
        text_bytes: UTF-8 bytes of text behind them (for a part of a set: tokens * bytes of the set / tokens
            of the set); None if the set does not know its bytes.
    """

    loss_sum: float
    tokens: int
    text_bytes: float | None

    @property
    def lm_loss(self) -> float:
        """Mean loss of a token in nats."""
        return self.loss_sum / self.tokens

    @property
    def bits_per_byte(self) -> float | None:
        """Bits that the model spends on one byte of text: comparable between tokenizers and languages."""
        return None if not self.text_bytes else self.loss_sum / math.log(2) / self.text_bytes


@dataclass(frozen=True, kw_only=True)
class SetScore:
    """What is reported of one held-out set: nats a token, bits a byte (None if unknown), tokens."""

    lm_loss: float
    bits_per_byte: float | None
    tokens: int


@dataclass(frozen=True, kw_only=True)
class GroupScore:
    """What is reported of held-out sets together: as of one set, and exp(lm_loss)."""

    lm_loss: float
    perplexity: float
    bits_per_byte: float | None
    tokens: int


@dataclass(frozen=True, kw_only=True)
class ValidationRecord:
    """Loss on held-out text after ``iteration`` steps: over all sets together, of each set and of each group.

    Attributes:
        iteration: optimizer steps done.
        consumed_samples: training sequences read so far.
        consumed_tokens: training tokens read so far.
        lm_loss: mean loss over all held-out tokens in nats.
        perplexity: exp(lm_loss).
        bits_per_byte: over all sets; None unless every set knows its bytes.
        tokens: held-out tokens the loss is over.
        per_dataset: score of each set, by name.
        per_group: by dimension and value; see ``megatron_ext.observe.groups``.
    """

    kind: Literal["validation"] = field(default="validation", init=False)
    iteration: int
    consumed_samples: int
    consumed_tokens: int
    lm_loss: float
    perplexity: float
    bits_per_byte: float | None
    tokens: int
    per_dataset: Mapping[str, SetScore]
    per_group: Mapping[str, Mapping[str, GroupScore]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """The record as what a sink writes."""
        return _without_empty_groups(asdict(self))


def summarise_validation(
    losses: Mapping[str, SetLoss],
    groups: Groups,
    *,
    iteration: int,
    consumed_samples: int,
    consumed_tokens: int,
) -> ValidationRecord:
    """Make the record of a validation from each set's summed loss; a set or group with no token read is left out.

    Raises:
        DataError: not one token was read.
    """
    overall = _score(losses.values())
    if overall is None:
        raise DataError("validation read no token: the held-out sets are empty")
    return ValidationRecord(
        iteration=iteration,
        consumed_samples=consumed_samples,
        consumed_tokens=consumed_tokens,
        **vars(overall),
        per_dataset={
            name: SetScore(lm_loss=loss.lm_loss, bits_per_byte=loss.bits_per_byte, tokens=loss.tokens)
            for name, loss in losses.items()
            if loss.tokens > 0
        },
        per_group=_score_groups(list(losses.values()), groups),
    )


def _score_groups(losses: Sequence[SetLoss], groups: Groups) -> dict[str, dict[str, GroupScore]]:
    found: dict[str, dict[str, GroupScore]] = {}
    for dimension, values in groups.items():
        scores = {value: _score(losses[position] for position in sets) for value, sets in values.items()}
        found[dimension] = {value: score for value, score in scores.items() if score is not None}
    return {dimension: scores for dimension, scores in found.items() if scores}


def _score(losses: Iterable[SetLoss]) -> GroupScore | None:
    """Over all tokens of these sets together; None if none was read."""
    read = [loss for loss in losses if loss.tokens > 0]
    if not read:
        return None
    known_bytes = [loss.text_bytes for loss in read if loss.text_bytes is not None]
    together = SetLoss(
        loss_sum=math.fsum(loss.loss_sum for loss in read),
        tokens=sum(loss.tokens for loss in read),
        text_bytes=math.fsum(known_bytes) if len(known_bytes) == len(read) else None,
    )
    return GroupScore(
        lm_loss=together.lm_loss,
        perplexity=_exp(together.lm_loss),
        bits_per_byte=together.bits_per_byte,
        tokens=together.tokens,
    )


def _without_empty_groups(record: dict[str, object]) -> dict[str, object]:
    """A run whose sets have no groups writes nothing of them."""
    return {key: value for key, value in record.items() if key != "per_group" or value}


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
