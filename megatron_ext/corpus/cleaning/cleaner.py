"""`Cleaner`: repairs and filters of one batch of texts after the other."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from megatron_ext._C import CharacterClasses
from megatron_ext.corpus.cleaning import boilerplate, repairs
from megatron_ext.corpus.cleaning.characters import character_classes
from megatron_ext.corpus.cleaning.config import CleaningConfig
from megatron_ext.corpus.cleaning.filters import FilterConfig
from megatron_ext.corpus.cleaning.mending import SURROGATES, mend, steps
from megatron_ext.corpus.cleaning.rules import CONTROL_RULE, Values, broken_rules, thresholds


class Cleaned(NamedTuple):
    """What became of a text.

    Attributes:
        text: mended; None: a rule removed it.
        removed_by: that rule, a key of `FilterConfig`: of all that the text breaks, the first there.
        repairs: keys of `RepairConfig` that changed it, in the order in which they did, perhaps after `SURROGATES`.
    """

    text: str | None
    removed_by: str | None
    repairs: tuple[str, ...]


class _Limits(NamedTuple):
    """Filters, and their thresholds as a row."""

    filters: FilterConfig
    row: Values


class Cleaner:
    """Mends texts and removes those that break a rule, by the settings of a corpus."""

    def __init__(self, config: CleaningConfig) -> None:
        """Make the tables.

        Raises:
            MissingDependencyError: ftfy is not installed.
        """
        self._config = config
        self._classes = character_classes()
        self._known_limits: dict[tuple[str | None, str], _Limits] = {}

    def clean(self, texts: Sequence[str], scripts: Sequence[str | None], category: str) -> list[Cleaned]:
        """Mend texts and apply the rules to what they have become.

        Args:
            texts: documents.
            scripts: ISO 15924 code of each, None where there are no letters.
            category: of all of them, as in `Corpus`.

        Returns:
            one a text, in their order.
        """
        if not texts:
            return []
        limits = [self._limits(script, category) for script in scripts]
        rows = np.stack([of.row for of in limits])
        texts, made = _well_formed(texts)
        found, characters, controls = self._classes.defects(texts).T
        control_shares = controls / np.maximum(characters, 1)
        is_text = ~(control_shares > rows[:, CONTROL_RULE])
        wanted = steps(self._config.repairs_for(category))
        lorem_ipsum = boilerplate.texts_with(boilerplate.LOREM_IPSUM, texts)
        banners = boilerplate.texts_with(boilerplate.PHRASES, texts)
        for index in np.flatnonzero(is_text):
            texts[index], keys = mend(texts[index], int(found[index]), banners[index], wanted)
            made[index] += keys
        counts = self._counts(texts, limits)
        counts["control_share"] = control_shares
        counts["lorem_ipsum"] = np.array(lorem_ipsum, np.float64)
        return [
            Cleaned(text if rule is None else None, rule, tuple(keys))
            for text, rule, keys in zip(texts, broken_rules(counts, rows), made, strict=True)
        ]

    def _limits(self, script: str | None, category: str) -> _Limits:
        key = (script, category)
        if key not in self._known_limits:
            filters = self._config.filters_for(script, category)
            self._known_limits[key] = _Limits(filters, thresholds(filters))
        return self._known_limits[key]

    def _counts(self, texts: list[str], limits: Sequence[_Limits]) -> dict[str, Values]:
        """What the rules look at: float64 ``[texts]`` each."""
        per_word = np.array([of.filters.characters_per_word or 0 for of in limits], np.int64)
        per_line = np.array([of.filters.short_line_characters for of in limits], np.int64)
        quality = self._classes.quality(texts, per_word, per_line).astype(np.float64)
        counts = dict(zip(CharacterClasses.QUALITY_COLUMNS, quality.T, strict=True))
        counts["words"] = counts["units"] / np.maximum(per_word, 1)
        short = counts["words"] < np.array([of.filters.duplicate_ngram_min_words for of in limits])
        for n in range(5, 11):
            counts[f"duplicate_{n}gram"][short] = 0
        stop_words = [_stop_words(text, of.filters) for text, of in zip(texts, limits, strict=True)]
        counts["stop_words"] = np.array(stop_words, np.float64)
        return counts


def _well_formed(texts: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Texts without surrogates, which no file can hold, and whether they had some: the first repairs of each."""
    out = list(texts)
    made: list[list[str]] = [[] for _ in texts]
    for index, text in enumerate(texts):
        try:
            text.encode()
        except UnicodeEncodeError:
            out[index] = repairs.repair_surrogates(text)
            made[index].append(SURROGATES)
    return out, made


def _stop_words(text: str, filters: FilterConfig) -> int:
    """How many different stop words are in a text; 0 where nobody wants to know."""
    if filters.min_stop_words is None:
        return 0
    return len({word.casefold() for word in text.split()} & set(filters.stop_words))
