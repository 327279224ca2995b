"""What cleaning does to which text: repairs and filters, and how they differ by script and by category."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from megatron_ext.config.section import PositiveInt, Section
from megatron_ext.corpus.cleaning.filters import FilterConfig
from megatron_ext.corpus.cleaning.presets import CATEGORIES, SCRIPTS
from megatron_ext.corpus.counts import CATEGORIES as CATEGORY_NAMES
from megatron_ext.corpus.labels.scripts import script_code
from megatron_ext.errors import CorpusError


class RepairConfig(Section):
    """What is mended, in this order. Lone surrogates always are: no file can hold them."""

    html_entities: bool = Field(
        default=True, description="&eacute; where the text has no <, which tells of markup (ftfy)"
    )
    mojibake: bool = Field(default=True, description="text that was decoded wrongly, such as Ã© for é (ftfy)")
    line_ends: bool = Field(default=True, description="of every kind become line feeds")
    control_characters: bool = Field(
        default=True,
        description="are left out but for tabs, and so are byte-order marks, noncharacters and terminal escapes",
    )
    invisible_characters: bool = Field(
        default=True,
        description="soft hyphens, zero-width characters and marks of direction are left out where no orthography "
        "needs them",
    )
    composition: bool = Field(default=True, description="Unicode's normal form C")
    boilerplate_lines: bool = Field(
        default=True, description="short lines on cookies, privacy, JavaScript are left out (C4)"
    )
    symbol_lines: bool = Field(default=True, description="lines of punctuation only become blank (datatrove)")
    max_line_repeats: PositiveInt | None = Field(
        default=None,
        description="a line that occurs more often, such as a running header, stays only where it occurs first",
    )
    white_space: bool = Field(
        default=True,
        description="at ends of lines and around the text, and blank lines beyond one, are left out",
    )


class _Overrides(Section):
    """Knows which of its keys were written, shows no others, and lays them over another section."""

    @model_serializer(mode="wrap")
    def _written_only(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if key in self.model_fields_set}

    def written(self) -> dict[str, Any]:
        """The keys that were written, with their values."""
        return {key: getattr(self, key) for key in self.model_fields_set}


class RepairOverrides(_Overrides, RepairConfig):
    """Some keys of `RepairConfig`."""


class FilterOverrides(_Overrides, FilterConfig):
    """Some keys of `FilterConfig`."""


class CategoryConfig(Section):
    """What differs in the texts of one category."""

    repairs: RepairOverrides = RepairOverrides()
    filters: FilterOverrides = FilterOverrides()


class CleaningConfig(Section):
    """All of it. The presets of ``presets.py`` lie under ``scripts`` and ``categories``, key by key.

    A category's keys win over a script's, and these over ``repairs`` and ``filters``.
    """

    repairs: RepairConfig = RepairConfig()
    filters: FilterConfig = FilterConfig()
    scripts: dict[str, FilterOverrides] = Field(
        default={}, description="by ISO 15924 code or name: filters that differ in texts of the script"
    )
    categories: dict[str, CategoryConfig] = Field(
        default={}, description="by category: repairs and filters that differ in its texts"
    )

    @field_validator("scripts", mode="before")
    @classmethod
    def _known_scripts(cls, value: object) -> object:
        return _over_presets(SCRIPTS, value, _script)

    @field_validator("categories", mode="before")
    @classmethod
    def _known_categories(cls, value: object) -> object:
        return _over_presets(CATEGORIES, value, _category)

    def filters_for(self, script: str | None, category: str) -> FilterConfig:
        """The filters of texts in one script (ISO 15924) and category."""
        script_keys = self.scripts[script].written() if script in self.scripts else {}
        category_keys = self.categories[category].filters.written() if category in self.categories else {}
        return self.filters.model_copy(update=script_keys | category_keys)

    def repairs_for(self, category: str) -> RepairConfig:
        """The repairs of texts of one category."""
        keys = self.categories[category].repairs.written() if category in self.categories else {}
        return self.repairs.model_copy(update=keys)


def _over_presets(presets: Mapping[str, Any], value: object, read_key: Any) -> object:
    """What was written laid over the presets, key by key; anything but a mapping is left to pydantic."""
    if not isinstance(value, Mapping):
        return value
    merged = dict(presets)
    for key, written in value.items():
        known = read_key(str(key))
        merged[known] = _merged(merged.get(known, {}), written)
    return merged


def _merged(below: object, above: object) -> object:
    if not isinstance(below, Mapping) or not isinstance(above, Mapping):
        return above
    return {**below, **{key: _merged(below.get(key), value) for key, value in above.items()}}


def _script(key: str) -> str:
    try:
        return script_code(key)
    except CorpusError as error:
        raise ValueError(str(error)) from error


def _category(key: str) -> str:
    if key not in CATEGORY_NAMES:
        nearest = get_close_matches(key, CATEGORY_NAMES, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"those are {', '.join(CATEGORY_NAMES)}"
        raise ValueError(f"{key} is no category; {hint}")
    return key
