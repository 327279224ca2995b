"""``mixture.yaml``: from how many tokens there are to how many are read, as rules that build on each other.

For each stage of the run (most have one), in this order:

1. tiers: sets below the lowest threshold are not read;
2. categories: each gets its fixed share of the stage's tokens, or all sets are one pool;
3. overrides: a label's fixed amount is taken from its category's;
4. the rule divides the rest of the category;
5. max_epochs and min_share: what a set may not take goes to the others of its category in proportion to their
   amounts, what it lacks comes from them, until all keep both. Where a set cannot have both, max_epochs wins.
   Overrides are bound by neither.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from megatron_ext.config.section import Amount, Fraction, PositiveInt, Section
from megatron_ext.corpus.mixture.rules.choice import RuleChoice

Positive = Annotated[float, Field(gt=0)]


class CategoryShare(Section):
    """What a category gets."""

    share: Fraction | None = Field(
        default=None, description="of the stage's tokens, 0 leaves it out; one category may have what is left"
    )
    rule: RuleChoice | None = Field(default=None, description="among its sets; default: the mixture's")


class Override(Section):
    """A label's amount, whatever the rules say; give one of the three."""

    share: Fraction | None = Field(default=None, description="of the stage's tokens")
    epochs: Amount | None = Field(default=None, description="how often it is read in the stage")
    tokens: Amount | None = Field(default=None, description="to read in the stage")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(value is not None for value in (self.share, self.epochs, self.tokens)) != 1:
            raise PydanticCustomError("override", "give one of share, epochs and tokens")
        return self

    def of(self, available: float, budget: float) -> float:
        """Tokens to read of ``available``, in a stage of ``budget``."""
        if self.share is not None:
            return self.share * budget
        return self.tokens if self.tokens is not None else (self.epochs or 0.0) * available


class MixtureRules(Section):
    """How the tokens of a stage are divided."""

    rule: RuleChoice = RuleChoice()
    categories: dict[str, CategoryShare] = Field(
        default={}, description="every category of the corpus, or none: then all sets are one pool"
    )
    max_epochs: Positive | None = Field(
        default=None, description="how often a set is read at most, earlier stages included"
    )
    min_share: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="of the stage's tokens, for every set that is read at all"
    )
    overrides: dict[str, Override] = Field(
        default={}, description="by label, or category/label where a label is in several categories"
    )


class StageMixture(MixtureRules):
    """Rules that hold from here on; what a stage does not say is as the mixture says it."""

    name: Annotated[str, Field(min_length=1)]
    from_tokens: Positive | None = Field(default=None, description="tokens that the run reads before")
    from_fraction: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="the same as a part of the whole run"
    )

    def over(self, mixture: MixtureRules) -> MixtureRules:
        """The rules of this stage, complete."""
        said = {
            name: getattr(self if name in self.model_fields_set else mixture, name)
            for name in MixtureRules.model_fields
        }
        return MixtureRules(**said)

    def start(self, budget: float) -> float:
        """Tokens before this stage, in a run of ``budget``."""
        return self.from_tokens if self.from_tokens is not None else (self.from_fraction or 0.0) * budget


class TiersConfig(Section):
    """Classes of sets by what there is of them."""

    unit: Literal["whitespace_tokens", "tokens"] = Field(
        description="what thresholds count: runs of characters other than white space, or the tokenizer's tokens"
    )
    thresholds: dict[str, Amount] = Field(
        min_length=1,
        description="the least of each tier, largest first; below the last one nothing is trained",
    )

    @model_validator(mode="after")
    def _descending(self) -> Self:
        values = list(self.thresholds.values())
        if sorted(set(values), reverse=True) != values:
            raise PydanticCustomError(
                "tiers", "write thresholds from the largest to the smallest, none twice"
            )
        return self

    def tier(self, amount: int) -> str | None:
        """The tier of a set with so many tokens; None: too few to train on."""
        return next((name for name, least in self.thresholds.items() if amount >= least), None)


class BudgetConfig(Section):
    """How much the run reads: tokens, or steps of a batch; neither: what the rules ask for by themselves."""

    tokens: Positive | None = None
    train_iters: PositiveInt | None = None
    global_batch_size: PositiveInt | None = Field(default=None, description="sequences of a step")
    seq_length: PositiveInt = Field(default=4096, description="tokens of a sequence")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.train_iters is not None and (self.tokens is not None or self.global_batch_size is None):
            raise PydanticCustomError("budget", "give tokens, or train_iters with global_batch_size")
        return self

    @property
    def total(self) -> float | None:
        """Tokens of the run."""
        if self.train_iters is not None and self.global_batch_size is not None:
            return float(self.train_iters * self.global_batch_size * self.seq_length)
        return self.tokens


class MixtureConfig(MixtureRules):
    """The whole file."""

    tiers: TiersConfig | None = Field(default=None, description="default: none, and everything is trained on")
    budget: BudgetConfig = BudgetConfig()
    stages: tuple[StageMixture, ...] = Field(
        default=(), strict=False, description="by their start; the first one has none. Default: one stage"
    )
    warn_epochs: Positive = Field(
        default=4.0,
        description="warn of sets that are read more often; up to 4 times is about as good as new text "
        "(arXiv 2305.16264)",
    )

    @model_validator(mode="after")
    def _starts(self) -> Self:
        for index, stage in enumerate(self.stages):
            given = sum(start is not None for start in (stage.from_tokens, stage.from_fraction))
            if given != (index > 0):
                wanted = (
                    "one of from_tokens and from_fraction" if index else "no start: the run starts with it"
                )
                raise PydanticCustomError("stages", f"stage {stage.name}: give {wanted}")
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise PydanticCustomError("stages", "two stages have the same name")
        return self
