"""What one line of ``metrics.jsonl`` says: a training step, or a validation over all held-out sets."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from megatron_ext.errors import DataError


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

    def to_dict(self) -> dict[str, object]:
        """The record as what a sink writes."""
        return asdict(self)


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
class ValidationRecord:
    """Loss on held-out text after ``iteration`` steps: over all sets together, and of each set.

    Attributes:
        iteration: optimizer steps done.
        consumed_samples: training sequences read so far.
        consumed_tokens: training tokens read so far.
        lm_loss: mean loss over all held-out tokens in nats.
        perplexity: exp(lm_loss).
        bits_per_byte: over all sets; None unless every set knows its bytes.
        tokens: held-out tokens the loss is over.
        per_dataset: score of each set, by name.
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

    def to_dict(self) -> dict[str, object]:
        """The record as what a sink writes."""
        return asdict(self)


def summarise_validation(
    losses: Mapping[str, SetLoss], *, iteration: int, consumed_samples: int, consumed_tokens: int
) -> ValidationRecord:
    """Make the record of a validation from each set's summed loss; a set with no token read is left out.

    Raises:
        DataError: not one token was read.
    """
    read = {name: loss for name, loss in losses.items() if loss.tokens > 0}
    if not read:
        raise DataError("validation read no token: the held-out sets are empty")
    known_bytes = [loss.text_bytes for loss in read.values() if loss.text_bytes is not None]
    overall = SetLoss(
        loss_sum=math.fsum(loss.loss_sum for loss in read.values()),
        tokens=sum(loss.tokens for loss in read.values()),
        text_bytes=math.fsum(known_bytes) if len(known_bytes) == len(read) else None,
    )
    return ValidationRecord(
        iteration=iteration,
        consumed_samples=consumed_samples,
        consumed_tokens=consumed_tokens,
        lm_loss=overall.lm_loss,
        perplexity=_exp(overall.lm_loss),
        bits_per_byte=overall.bits_per_byte,
        tokens=overall.tokens,
        per_dataset={
            name: SetScore(lm_loss=loss.lm_loss, bits_per_byte=loss.bits_per_byte, tokens=loss.tokens)
            for name, loss in read.items()
        },
    )


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
