"""Lines of a web page that are no text of its own."""

import re
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
_NO_WORD = re.compile(r"^(?:[^\w\n]|_)+$", re.MULTILINE)


def texts_with(phrases: Sequence[bytes], texts: Sequence[str]) -> list[bool]:
    """Which texts hold one of some ASCII phrases, in whatever case.

    Args:
        phrases: in lower case.
        texts: a batch, without surrogates. It is searched as a whole first: most phrases are not in it.
    """
    # Bytes are lowered by ASCII alone, and so quickly.
    together = "\n".join(texts).encode().lower()
    present = [phrase for phrase in phrases if phrase in together]
    if not present:
        return [False] * len(texts)
    lowered = (text.encode().lower() for text in texts)
    return [any(phrase in text for phrase in present) for text in lowered]


def remove_boilerplate(text: str) -> str:
    """Leave out short lines with one of `PHRASES`."""
    encoded = text.encode()
    lowered = encoded.lower()
    present = [phrase for phrase in PHRASES if phrase in lowered]
    kept = [
        line
        for line, lowered_line in zip(encoded.split(b"\n"), lowered.split(b"\n"), strict=True)
        if not any(phrase in lowered_line for phrase in present) or len(line.decode()) > LONGEST_BANNER
    ]
    return b"\n".join(kept).decode()


def blank_symbol_lines(text: str) -> str:
    """Lines of punctuation and symbols become blank, for they part paragraphs (datatrove, SymbolLinesFormatter)."""
    return _NO_WORD.sub(lambda line: "" if _is_of_symbols(line[0]) else line[0], text)


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


def _is_of_symbols(line: str) -> bool:
    return bool(line.strip()) and all(
        character.isspace() or unicodedata.category(character)[0] in "PS" for character in line
    )
