"""The rules there are, by their keys in YAML. A new one is a file beside this one and a line here."""

from typing import Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from megatron_ext.config.section import Section
from megatron_ext.corpus.mixture.rules.base import MixtureRule
from megatron_ext.corpus.mixture.rules.proportional import Proportional
from megatron_ext.corpus.mixture.rules.temperature import Temperature
from megatron_ext.corpus.mixture.rules.tier_rates import TierRates
from megatron_ext.corpus.mixture.rules.unimax import UniMax


class RuleChoice(Section):
    """One of the rules, such as ``temperature: {alpha: 0.3}``; none of them: proportional."""

    proportional: Proportional | None = None
    temperature: Temperature | None = None
    unimax: UniMax | None = None
    tier_rates: TierRates | None = None

    @property
    def name(self) -> str:
        """The chosen rule's key."""
        return next(iter(self._given()), "proportional")

    @property
    def chosen(self) -> MixtureRule:
        """The rule itself."""
        return self._given().get(self.name, Proportional())

    def _given(self) -> dict[str, MixtureRule]:
        rules = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: rule for name, rule in rules.items() if rule is not None}

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = list(self._given())
        if len(given) > 1:
            raise PydanticCustomError("rules", f"has {' and '.join(given)}; keep one of them")
        return self
