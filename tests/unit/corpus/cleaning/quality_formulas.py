"""The counts of `_C.CharacterClasses.quality` in plain Python: what the C++ is compared with."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import regex

SEPARATOR = re.compile(r"[\s\u0f0b\u0f0c\u1361\u200b]+")
BULLETS = "-\u2022\u2023\u2043\u25aa\u25cb\u25cf\u25e6"
SENTENCE_END = regex.compile(r"[\p{Sentence_Terminal}\u0f0d-\u0f11\u0f14][\"')\]}\p{Pe}\p{Pf}\p{Pi}]*$")


def quality(text: str, characters_per_word: int, short_line_characters: int) -> dict[str, int]:
    """All columns of one text."""
    lines = [line.strip() for line in text.split("\n")]
    full = [line for line in lines if line]
    words = [word for word in SEPARATOR.split(text) if word]
    units = words if characters_per_word == 0 else list("".join(words))
    majors = Counter(unicodedata.category(character)[0] for character in text)
    return {
        "characters": len(text),
        "letters": majors["L"],
        "digits": majors["N"],
        "symbols": majors["P"] + majors["S"],
        "replacements": text.count("\ufffd"),
        "hashes": text.count("#"),
        "ellipses": text.count("...") + text.count("…"),
        "units": len(units),
        "unit_characters": sum(map(len, units)),
        "letter_words": sum(any(unicodedata.category(c)[0] == "L" for c in word) for word in words),
        "lines": len(full),
        "line_characters": sum(map(len, full)),
        "sentence_lines": sum(SENTENCE_END.search(line) is not None for line in full),
        "short_lines": sum(len(line) <= short_line_characters for line in full),
        "bullet_lines": sum(line[0] in BULLETS for line in full),
        "ellipsis_lines": sum(line.endswith(("...", "…")) for line in full),
        **_duplicates("line", full, [_words(line) for line in full]),
        **_paragraphs(lines),
        **{f"top_{n}gram": _top(units, n, characters_per_word) for n in (2, 3, 4)},
        **{f"duplicate_{n}gram": _repeated(units, n * max(characters_per_word, 1)) for n in range(5, 11)},
    }


def _words(line: str) -> tuple[str, ...]:
    return tuple(word for word in SEPARATOR.split(line) if word)


def _duplicates(name: str, items: Sequence[str], keys: Sequence[object]) -> dict[str, int]:
    again = [item for place, item in enumerate(items) if keys[place] in keys[:place]]
    return {f"duplicate_{name}s": len(again), f"duplicate_{name}_characters": sum(map(len, again))}


def _paragraphs(lines: Sequence[str]) -> dict[str, int]:
    paragraphs = [part.strip("\n") for part in re.split(r"\n{2,}", "\n".join(lines)) if part.strip("\n")]
    keys = [tuple(_words(line) for line in part.split("\n")) for part in paragraphs]
    return {"paragraphs": len(paragraphs), **_duplicates("paragraph", paragraphs, keys)}


def _ngrams(units: Sequence[str], length: int) -> list[tuple[str, ...]]:
    return [tuple(units[start : start + length]) for start in range(len(units) - length + 1)]


def _top(units: Sequence[str], n: int, characters_per_word: int) -> int:
    ngrams = _ngrams(units, n * max(characters_per_word, 1))
    if not ngrams:
        return 0
    ngram, count = Counter(ngrams).most_common(1)[0]
    spaces = n - 1 if characters_per_word == 0 else 0
    return count * (sum(map(len, ngram)) + spaces) if count >= 4 else 0


def _repeated(units: Sequence[str], length: int) -> int:
    seen, characters, start = set(), 0, 0
    while start + length <= len(units):
        ngram = tuple(units[start : start + length])
        if ngram in seen:
            characters += sum(map(len, ngram))
            start += length
        else:
            seen.add(ngram)
            start += 1
    return characters
