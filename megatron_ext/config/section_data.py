"""The ``data`` section: which tokens are read, how much of each set, and what changes during a run."""

from typing import Annotated, Literal

from pydantic import Field

from megatron_ext.config.section import Alpha, Amount, GroupName, PositiveInt, Section


class DatasetConfig(Section):
    """One indexed dataset, or all that match a pattern, and how much of it is read.

    The three amounts exclude each other, and all entries of a list use the same one or none. What a pattern
    gets is spread over its sets by ``blend_alpha``. 0 leaves an entry out.
    """

    path: str = Field(description="prefix without .bin/.idx; may hold *, ? and [] to name many")
    weight: Amount | None = Field(
        default=None,
        description="share of the samples, relative to the other entries; default: by size",
    )
    tokens: Amount | None = Field(
        default=None,
        description="tokens to read, at most or many times those there are; scaled to the length of the run",
    )
    samples: Amount | None = Field(
        default=None, description="samples of seq_length to read; scaled to the length of the run"
    )
    groups: dict[GroupName, GroupName] = Field(
        default={},
        description="what metrics count these sets under, such as {label: eng_Latn, tier: high, category: mono}: "
        "dimensions and values of your choice; label defaults to a set's name",
    )

    @property
    def amounts(self) -> dict[str, float]:
        """What is given of the three, by name: one of them or none in a run that passed its rules."""
        given = {"weight": self.weight, "tokens": self.tokens, "samples": self.samples}
        return {unit: amount for unit, amount in given.items() if amount is not None}


class StageConfig(Section):
    """From here on another blend holds; give one of the two starts.

    A set that was read before, in whatever stage, goes on where it stopped.
    """

    from_samples: PositiveInt | None = Field(
        default=None, description="samples that the run consumes before this stage"
    )
    from_fraction: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="the same as a part of the whole run: 0.9 for its last tenth"
    )
    train: tuple[DatasetConfig, ...] = Field(
        min_length=1, strict=False, description="in place of data.train, or of the stage before"
    )
    blend_alpha: Alpha | None = Field(default=None, description="default: data.blend_alpha")

    def start(self, train_samples: int) -> int:
        """Samples before this stage, in a run of ``train_samples``."""
        if self.from_samples is not None:
            return self.from_samples
        return round((self.from_fraction or 0.0) * train_samples)


class DataConfig(Section):
    """Which tokens are read, in which mix and with which boundaries."""

    train: tuple[DatasetConfig, ...] = Field(min_length=1, strict=False)
    stages: tuple[StageConfig, ...] = Field(
        default=(), strict=False, description="blends that take the place of train later in the run, by start"
    )
    valid: tuple[DatasetConfig, ...] = Field(default=(), strict=False)
    split: str | None = Field(
        default=None,
        description="train,valid,test shares of each set's documents, such as 98,1,1; instead of valid",
    )
    blend_alpha: Alpha = Field(
        default=1.0, description="among sets without an amount of their own, share ∝ tokens^alpha"
    )
    order: Literal["permuted", "megatron"] = Field(
        default="permuted",
        description="permuted: every sample of an epoch once, nothing built; megatron: continues an older run",
    )
    eod_mask_loss: bool = False
    reset_attention_mask: bool = Field(default=False, description="attention stays inside a document")
    reset_position_ids: bool = False
    prefetch_batches: PositiveInt = 4
