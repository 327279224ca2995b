"""How rotary embeddings reach beyond the positions that a model was first trained on."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from megatron_ext.config.section import PositiveInt, Section

PositiveFloat = Annotated[float, Field(gt=0)]
RopeType = Literal["linear", "llama3", "yarn"]

REQUIRED_KEYS: dict[RopeType, tuple[str, ...]] = {
    "linear": (),
    "llama3": ("original_max_position_embeddings", "low_freq_factor", "high_freq_factor"),
    "yarn": ("original_max_position_embeddings",),
}
OPTIONAL_KEYS: dict[RopeType, tuple[str, ...]] = {
    "linear": (),
    "llama3": (),
    "yarn": ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"),
}


class RopeScalingConfig(Section):
    """Hugging Face's ``rope_scaling``, with its names; the formulas are in ``model/rotary.py``."""

    rope_type: RopeType
    factor: Annotated[float, Field(ge=1)] = Field(description="how many times longer positions may become")
    original_max_position_embeddings: PositiveInt | None = Field(
        default=None, description="of llama3 and yarn: positions before scaling"
    )
    low_freq_factor: PositiveFloat | None = Field(
        default=None, description="of llama3: waves longer than the original positions over this are divided"
    )
    high_freq_factor: PositiveFloat | None = Field(
        default=None, description="of llama3: waves shorter than the original positions over this stay"
    )
    attention_factor: PositiveFloat | None = Field(
        default=None, description="of yarn: multiplies sines and cosines; default: 0.1 ln(factor) + 1"
    )
    beta_fast: PositiveFloat | None = Field(
        default=None,
        description="of yarn: turns within the original positions from which waves stay; default: 32",
    )
    beta_slow: PositiveFloat | None = Field(
        default=None, description="of yarn: turns up to which waves are divided; default: 1"
    )
    mscale: PositiveFloat | None = Field(default=None, description="of yarn, with mscale_all_dim")
    mscale_all_dim: PositiveFloat | None = Field(default=None, description="of yarn, with mscale")
    truncate: bool | None = Field(
        default=None, description="of yarn: whether the ramp starts and ends at whole channels; default: true"
    )

    @model_validator(mode="after")
    def _keys_are_those_of_the_type(self) -> "RopeScalingConfig":
        kind = self.rope_type
        given = {key for key, value in self if value is not None} - {"rope_type", "factor"}
        required = set(REQUIRED_KEYS[kind])
        missing, foreign = required - given, given - required - set(OPTIONAL_KEYS[kind])
        if missing or foreign:
            lacks = f" lacks {', '.join(sorted(missing))}" if missing else ""
            has = f" does not know {', '.join(sorted(foreign))}" if foreign else ""
            raise ValueError(f"rope_type {kind}{' and'.join(filter(None, (lacks, has)))}")
        if kind == "llama3" and not (self.low_freq_factor or 0) < (self.high_freq_factor or 0):
            raise ValueError("high_freq_factor must be above low_freq_factor")
        return self
