"""The script that a text is written in, by the letters of a whole batch at once."""

import sys
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from megatron_ext.corpus.labels.exceptions import NO_SCRIPT, SCRIPT_CODES
from megatron_ext.corpus.labels.libraries import library

# Running Japanese is about half kana, Chinese that quotes it a few percent; Korean with Hanja is at least half Hangul.
MINOR_SHARE = 0.1
# Latin is every other script's guest: names, commands and addresses of a technical text in Japanese or Russian easily
# have more letters than its sentences. The other way round, a quotation is seldom a quarter of the text. Han, kana and
# Hangul say in one character what an alphabet says in two or three letters.
LATIN_GUESTS = 3
DENSITY = {"Hani": 2, "Jpan": 2, "Kore": 2}
_CODE_POINTS = sys.maxunicode + 1
_AFTER_LETTERS = 0x40000  # planes 4 to 16 have none
_NO_LETTER = 0


def scripts_of(texts: Sequence[str]) -> list[str | None]:
    """ISO 15924 code of the script of most letters in each text, Latin ones counting least: see `LATIN_GUESTS`.

    Letters are characters of Unicode's category L whose property Script is a script. Han counts as Japanese (``Jpan``)
    or Korean (``Kore``) beside kana or Hangul, else as ``Hani``: which of Hans and Hant it is, letters do not say.

    Returns:
        one code a text, None where there are no letters.
    """
    codes, table = _letters()
    places = {code: place for place, code in enumerate(codes)}
    scripts = table[_code_points("".join(texts))]
    ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
    counts = np.zeros((len(texts), len(codes)), np.int64)
    for row, (length, end) in enumerate(zip(map(len, texts), ends, strict=True)):
        counts[row] = np.bincount(scripts[end - length : end], minlength=len(codes))
    counts[:, _NO_LETTER] = 0
    _join_han(counts, places)
    counts *= [1 if code == "Latn" else LATIN_GUESTS * DENSITY.get(code, 1) for code in codes]
    best = counts.argmax(axis=1)
    found = counts[np.arange(len(texts)), best] > 0
    return [codes[place] if any_letter else None for place, any_letter in zip(best, found, strict=True)]


def _join_han(counts: NDArray[np.int64], places: dict[str, int]) -> None:
    """Count Han letters beside kana or Hangul with them; in place."""
    han, japanese, korean = (places[code] for code in ("Hani", "Jpan", "Kore"))
    for whole in (japanese, korean):
        beside = counts[:, whole] > MINOR_SHARE * (counts[:, whole] + counts[:, han])
        counts[:, whole] += np.where(beside, counts[:, han], 0)
        counts[:, han] = np.where(beside, 0, counts[:, han])


def _code_points(text: str) -> NDArray[np.uint32]:
    # A lone surrogate is no letter, and repairing it is not for this function.
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


@lru_cache(maxsize=1)
def _letters() -> tuple[list[str], NDArray[np.uint8]]:
    """Codes of scripts, and the place in that list of each code point; 0: no letter."""
    unicode_scripts = library("fontTools.unicodedata.Scripts", "fonttools", "detect scripts")
    found = [SCRIPT_CODES.get(code, code) for code in unicode_scripts.VALUES]  # kana is Jpan, Hangul Kore
    codes = ["", *sorted({*found} - NO_SCRIPT)]
    places = {code: place for place, code in enumerate(codes)}
    starts = np.array(unicode_scripts.RANGES)
    values = np.array([places.get(code, _NO_LETTER) for code in found], np.uint8)
    points = np.arange(_AFTER_LETTERS)
    letters = np.array([chr(point).isalpha() for point in points])
    table = np.full(_CODE_POINTS, _NO_LETTER, np.uint8)
    table[:_AFTER_LETTERS] = np.where(
        letters, values[np.searchsorted(starts, points, side="right") - 1], _NO_LETTER
    )
    return codes, table
