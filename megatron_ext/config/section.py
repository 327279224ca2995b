"""What every section of a run is made of: its base class, and numbers with bounds."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Beta = Annotated[float, Field(ge=0.0, lt=1.0)]  # at 1, Adam's correction of a moment would divide by 0
Amount = Annotated[float, Field(ge=0)]
Alpha = Annotated[float, Field(gt=0, le=1)]
GroupName = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """Base of every section: immutable, strict about keys, silent about nothing."""

    # strict: `true` is no number, "12" no integer; only a list may stand for a tuple (strict=False below).
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        validate_default=True,
        protected_namespaces=(),
    )
