"""Lines of a web page that are no text of its own."""

import unicodedata
from collections import Counter
from collections.abc import Sequence

# C4 (Raffel et al. 2020, section 2.2, and its code in tensorflow_datasets): lines with these words are left out, and a
# page with LOREM_IPSUM is none. They are English, but so are the banners of pages in other languages. C4 leaves out
# lines of any length; a paragraph is more likely to be on the matter than a banner.
PHRASES = (
    b"javascript",
    b"terms of use",
    b"privacy policy",
    b"cookie policy",
    b"uses cookies",
    b"use of cookies",
    b"use cookies",
)
LOREM_IPSUM = (b"lorem ipsum",)
LONGEST_BANNER = 200  # characters


def texts_with(phrases: Sequence[bytes], texts: Sequence[str]) -> list[bool]:
    """Which texts hold one of some ASCII phrases, in whatever case.

    Args:
        phrases: in lower case.
        texts: a batch, without surrogates. It is searched as a whole first: most phrases are not in it.
    """
    together = "\n".join(texts).encode().lower()
    present = [phrase for phrase in phrases if phrase in together]
    return [bool(present) and _holds(text, present) for text in texts]


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


def _holds(text: str, phrases: Sequence[bytes]) -> bool:
    lowered = text.encode().lower()  # of ASCII letters alone, and so quick
    return any(phrase in lowered for phrase in phrases)


def _is_banner(line: str) -> bool:
    return len(line) <= LONGEST_BANNER and _holds(line, PHRASES)


def _is_of_symbols(line: str) -> bool:
    return bool(line.strip()) and all(
        character.isspace() or unicodedata.category(character)[0] in "PS" for character in line
    )
