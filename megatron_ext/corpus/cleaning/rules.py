"""The rules as one matrix: a value for each text and rule beside a threshold for each text and rule."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megatron_ext.corpus.cleaning.filters import FilterConfig

Values = NDArray[np.float64]
Counts = Mapping[str, Values]


@dataclass(frozen=True)
class Rule:
    """Removes a text whose value is beyond a key of `FilterConfig`."""

    name: str
    value: Callable[[Counts], Values]

    @property
    def is_maximum(self) -> bool:
        """Whether the key is the largest value that stays, or the least."""
        return not self.name.startswith("min_")

    def threshold(self, config: FilterConfig) -> float:
        """The value of the key; NaN, which no value is beyond, where the rule is off."""
        value = getattr(config, self.name)
        if self.name == "lorem_ipsum":
            value = 0.0 if value else None
        return float("nan") if value is None else float(value)


def _count(name: str) -> Callable[[Counts], Values]:
    return lambda counts: counts[name]


def _share(part: str, whole: str = "characters") -> Callable[[Counts], Values]:
    # 0 of nothing is no share: 0. A text without a word or line is for the rules before.
    return lambda counts: counts[part] / np.maximum(counts[whole], 1)


def _line_ends_per_word(counts: Counts) -> Values:
    # Those between lines that hold something: a blank line parts paragraphs, and is no shorter a line for it.
    return np.maximum(counts["lines"] - 1, 0) / np.maximum(counts["words"], 1)


# In the order of `FilterConfig`: the first that a text breaks is the one that it is counted under.
RULES = (
    Rule("max_control_share", _count("control_share")),
    Rule("max_replacement_share", _share("replacements")),
    Rule("min_letters", _count("letters")),
    Rule("min_characters", _count("characters")),
    Rule("max_characters", _count("characters")),
    Rule("min_words", _count("words")),
    Rule("max_words", _count("words")),
    Rule("lorem_ipsum", _count("lorem_ipsum")),
    Rule("max_digit_share", _share("digits")),
    Rule("max_symbol_share", _share("symbols")),
    Rule("min_mean_word_length", _share("unit_characters", "words")),
    Rule("max_mean_word_length", _share("unit_characters", "words")),
    Rule("max_hashes_per_word", _share("hashes", "words")),
    Rule("max_ellipses_per_word", _share("ellipses", "words")),
    Rule("max_bullet_lines", _share("bullet_lines", "lines")),
    Rule("max_ellipsis_lines", _share("ellipsis_lines", "lines")),
    Rule("min_letter_words", _share("letter_words", "words")),
    Rule("min_stop_words", _count("stop_words")),
    Rule("min_sentence_lines", _share("sentence_lines", "lines")),
    Rule("max_short_lines", _share("short_lines", "lines")),
    Rule("max_newlines_per_word", _line_ends_per_word),
    Rule("max_duplicate_lines", _share("duplicate_lines", "lines")),
    Rule("max_duplicate_line_characters", _share("duplicate_line_characters", "line_characters")),
    Rule("max_duplicate_paragraphs", _share("duplicate_paragraphs", "paragraphs")),
    Rule("max_duplicate_paragraph_characters", _share("duplicate_paragraph_characters")),
    *(Rule(f"max_top_{n}gram", _share(f"top_{n}gram")) for n in (2, 3, 4)),
    *(Rule(f"max_duplicate_{n}gram", _share(f"duplicate_{n}gram")) for n in range(5, 11)),
)
CONTROL_RULE = 0  # of `RULES`: known before a text is repaired
_IS_MAXIMUM = np.array([rule.is_maximum for rule in RULES])


def thresholds(config: FilterConfig) -> Values:
    """float64 ``[len(RULES)]``; NaN where a rule is off."""
    return np.array([rule.threshold(config) for rule in RULES])


def broken_rules(counts: Counts, limits: Values) -> list[str | None]:
    """The first rule that each text breaks, or None.

    Args:
        counts: of `_C.CharacterClasses.quality`, and ``words``, ``control_share``, ``lorem_ipsum`` (0 or 1) and
            ``stop_words``: float64 ``[texts]`` each.
        limits: `thresholds` for each text, ``[texts, len(RULES)]``.
    """
    values = np.stack([rule.value(counts) for rule in RULES], axis=1)
    broken = np.where(_IS_MAXIMUM, values > limits, values < limits)
    first = broken.argmax(axis=1)
    any_broken = broken[np.arange(len(first)), first] if len(first) else []
    return [
        RULES[rule].name if is_broken else None for rule, is_broken in zip(first, any_broken, strict=True)
    ]
