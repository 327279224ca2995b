"""Lines of a web page that are no text of its own."""

import unicodedata
from collections import Counter

# C4 (Raffel et al. 2020, section 2.2, and its code in tensorflow_datasets): lines with these words are left out, and a
# page with LOREM_IPSUM is none. They are English, but so are the banners of pages in other languages. C4 leaves out
# lines of any length; a paragraph is more likely to be on the matter than a banner.
PHRASES = (
    b"javascript", b"terms of use", b"privacy policy", b"cookie policy", b"uses cookies", b"use of cookies",
    b"use cookies",
)
LOREM_IPSUM = b"lorem ipsum"
LONGEST_BANNER = 200  # characters


def has_boilerplate(lowered: bytes) -> bool:
    """Whether there may be a line to leave out; ``lowered`` is UTF-8 with its ASCII letters in lower case."""
    return any(phrase in lowered for phrase in PHRASES)


def remove_boilerplate(text: str) -> str:
    """Leave out short lines with one of `PHRASES`."""
    return "\n".join(line for line in text.split("\n") if not _is_banner(line))


def blank_symbol_lines(text: str) -> str:
    """Lines of punctuation and symbols become blank, for they part paragraphs (datatrove, SymbolLinesFormatter)."""
    return "\n".join("" if _is_of_symbols(line) else line for line in text.split("\n"))


def remove_repeated_lines(text: str, most: int) -> str:
    """Of each line that occurs more than ``most`` times, leave the first."""
    lines = text.split("\n")
    if len(lines) <= most:
        return text
    counts = Counter(line.strip() for line in lines)
    repeated = {line for line, count in counts.items() if line and count > most}
    if not repeated:
        return text
    kept, seen = [], set()
    for line in lines:
        words = line.strip()
        if words not in repeated or words not in seen:
            kept.append(line)
            seen.add(words)
    return "\n".join(kept)


def _is_banner(line: str) -> bool:
    return len(line) <= LONGEST_BANNER and has_boilerplate(line.encode().lower())


def _is_of_symbols(line: str) -> bool:
    return bool(line.strip()) and all(
        character.isspace() or unicodedata.category(character)[0] in "PS" for character in line
    )
