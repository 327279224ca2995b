"""What differs by script and by category unless somebody says otherwise: keys of the sections in ``config.py``."""

from typing import Any

Keys = dict[str, Any]


def _unspaced(characters_per_word: int, **keys: Any) -> Keys:
    """Filters of a script that puts no space between words.

    ``characters_per_word`` gives the Universal Declaration of Human Rights in the script about as many words as in
    English (1747). That makes the mean length of words the same everywhere, and which of them have letters cannot be
    said: both rules are off. Few of these scripts end sentences with a mark, hence no rule for that.
    """
    return {
        "characters_per_word": characters_per_word,
        "min_mean_word_length": None,
        "max_mean_word_length": None,
        "min_letter_words": None,
        "min_sentence_lines": None,
        **keys,
    }


def _repetition(top: tuple[float, ...], duplicate: tuple[float, ...]) -> Keys:
    """Thresholds of the n-grams of 2 to 4 and 5 to 10 words: FineWeb2's for one language (configs/LABEL.yml)."""
    return {f"max_top_{n}gram": share for n, share in enumerate(top, 2)} | {
        f"max_duplicate_{n}gram": share for n, share in enumerate(duplicate, 5)
    }


_CHINESE = _unspaced(  # cmn_Hani
    2,
    short_line_characters=15,
    min_characters=10,
    **_repetition((0.256, 0.201, 0.171), (0.198, 0.182, 0.167, 0.154, 0.14, 0.127)),
)
_JAPANESE = _unspaced(  # jpn_Jpan
    2,
    short_line_characters=15,
    min_characters=10,
    **_repetition((0.239, 0.196, 0.172), (0.243, 0.225, 0.207, 0.19, 0.175, 0.159)),
)
# Vowels and other signs of a letter count as characters of their own. FineWeb2: 25 to 68.
_LONG_WORDS = {"max_mean_word_length": 30.0}
# A character is a syllable. FineWeb2: 1 or 2 in kor_Hang and languages in Ethiopic letters.
_SHORT_WORDS = {"min_mean_word_length": 1.0}

SCRIPTS: dict[str, Keys] = {
    "Hani": _CHINESE,
    "Hans": _CHINESE,
    "Hant": _CHINESE,
    "Bopo": _CHINESE,
    "Yiii": _unspaced(2),
    "Jpan": _JAPANESE,
    "Hira": _JAPANESE,
    "Kana": _JAPANESE,
    "Thai": _unspaced(5, **_repetition((0.221, 0.197, 0.162), (0.185, 0.168, 0.152, 0.137, 0.124, 0.111))),
    "Laoo": _unspaced(6, **_repetition((0.198, 0.175, 0.143), (0.187, 0.175, 0.163, 0.149, 0.135, 0.123))),
    # khm_Khmr's own thresholds of the most frequent n-grams (0.594 and less) would let nearly everything pass.
    "Khmr": _unspaced(6, **_repetition((0.2, 0.18, 0.16), (0.175, 0.16, 0.148, 0.135, 0.121, 0.109))),
    "Mymr": _unspaced(8, **_repetition((0.161, 0.152, 0.133), (0.167, 0.155, 0.145, 0.134, 0.124, 0.113))),
    "Lana": _unspaced(5),
    "Java": _unspaced(6),
    "Bali": _unspaced(6),
    **dict.fromkeys(("Knda", "Mlym", "Taml", "Telu"), _LONG_WORDS),
    **dict.fromkeys(("Cans", "Cher", "Ethi", "Kore", "Vaii"), _SHORT_WORDS),
}

# Rules about the shape of prose, and about words that come again.
_PROSE_OFF: Keys = dict.fromkeys(
    [
        "min_mean_word_length",
        "max_mean_word_length",
        "max_hashes_per_word",
        "max_ellipses_per_word",
        "max_bullet_lines",
        "max_ellipsis_lines",
        "min_letter_words",
        "min_sentence_lines",
        "max_short_lines",
        "max_newlines_per_word",
    ]
)
_REPETITION_OFF: Keys = dict.fromkeys(
    [
        "max_duplicate_lines",
        "max_duplicate_line_characters",
        "max_duplicate_paragraphs",
        "max_duplicate_paragraph_characters",
        *(f"max_top_{n}gram" for n in (2, 3, 4)),
        *(f"max_duplicate_{n}gram" for n in range(5, 11)),
    ]
)
_ANY_LENGTH: Keys = {"max_characters": None, "max_words": None}

CATEGORIES: dict[str, Keys] = {
    # White space, signs and repetition are what code consists of. Entities and control characters stand in strings,
    # and a text in form C may be another string.
    "code": {
        "repairs": dict.fromkeys(
            [
                "html_entities",
                "mojibake",
                "control_characters",
                "invisible_characters",
                "composition",
                "boilerplate_lines",
                "symbol_lines",
                "white_space",
            ],
            False,
        ),
        "filters": {
            **_PROSE_OFF,
            **_REPETITION_OFF,
            "min_words": None,
            "max_digit_share": None,
            "max_symbol_share": None,
            "lorem_ipsum": False,
        },
    },
    # Long, with verse, dialogue and tables of contents; running headers repeat.
    "book": {
        "repairs": {"max_line_repeats": 10, "boilerplate_lines": False},
        "filters": {
            **_ANY_LENGTH,
            **dict.fromkeys(["max_bullet_lines", "max_newlines_per_word", "max_duplicate_lines"]),
        },
    },
    # Long, with formulas, tables and references.
    "paper": {
        "repairs": {"max_line_repeats": 10, "boilerplate_lines": False, "symbol_lines": False},
        "filters": {
            **_ANY_LENGTH,
            "max_digit_share": 0.4,
            "max_symbol_share": 0.4,
            "min_letter_words": 0.5,
            **dict.fromkeys(["max_hashes_per_word", "max_newlines_per_word"]),
        },
    },
    # Short turns that hold lists, code and text that is quoted twice.
    "instruction": {
        "repairs": dict.fromkeys(["html_entities", "boilerplate_lines", "symbol_lines"], False),
        "filters": {
            **_PROSE_OFF,
            **_REPETITION_OFF,
            "min_characters": 2,
            "min_words": 1,
            "max_digit_share": None,
            "max_symbol_share": 0.5,
            "lorem_ipsum": False,
        },
    },
    # Sentences and their translations, in two languages: one script's rules do not hold for the other.
    "bilingual": {
        "repairs": dict.fromkeys(["boilerplate_lines", "symbol_lines"], False),
        "filters": {**_PROSE_OFF, **_REPETITION_OFF, "min_characters": 2, "min_words": 1},
    },
}
