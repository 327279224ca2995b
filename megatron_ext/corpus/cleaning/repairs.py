"""Repairs of one text, each for one kind of defect; which of them a text may need is seen beforehand.

What each does and what it is good for is said in `RepairConfig`; the order is that of `RepairConfig` too.
"""

import re
import unicodedata
from typing import Any

from megatron_ext.corpus.cleaning import characters
from megatron_ext.corpus.cleaning.characters import character_set
from megatron_ext.corpus.labels.libraries import library

# Scripts whose spelling needs joiners and zero-width spaces: from Hebrew and Arabic over the scripts of South and
# Southeast Asia to Mongolian; and emoji, which are joined.
_JOINED = character_set(
    "590-8FF 900-109F 1200-139F 1700-18AF 1900-1CFF A800-A8FF A900-A9FF AA00-ABFF FB1D-FDFF FE0F FE70-FEFC "
    "10A00-10FFF 11000-11FFF 1E800-1EFFF 2190-2BFF 1F000-1FAFF"
)
_RIGHT_TO_LEFT = re.compile(f"[{character_set('590-8FF FB1D-FDFF FE70-FEFC 10800-10FFF 1E800-1EFFF')}]")
_ODD_LINE_END = re.compile(f"\r\n|[{character_set(characters.ODD_LINE_ENDS)}]")
_CONTROL = re.compile(f"[{character_set('0-8 E-1B 1F 7F-84 86-9F ' + characters.CONTROLS)}]")
_INVISIBLE = re.compile(
    f"[{character_set('AD 2060-2064')}]|(?<![{_JOINED}])[{character_set('200B ' + characters.JOINERS)}]"
)
_DIRECTION = re.compile(f"[{character_set(characters.DIRECTIONS)}]")
_BLANK_LINES = re.compile("\n{3,}")


def repair_surrogates(text: str) -> str:
    """Pairs of surrogates become the character that they stand for, lone ones U+FFFD."""
    return str(_ftfy("fixes").fix_surrogates(text))


def unescape_html(text: str) -> str:
    """Entities become what they stand for."""
    return text if "<" in text else str(_ftfy("fixes").unescape_html(text))


def repair_mojibake(text: str) -> str:
    """Decode again what was decoded wrongly, line by line; ftfy's own test keeps it from all other lines."""
    fix = library("ftfy", "ftfy", "repair text").fix_encoding
    return "\n".join(line if line.isascii() else fix(line) for line in text.split("\n"))


def unify_line_ends(text: str) -> str:
    """Every line ends with a line feed."""
    return _ODD_LINE_END.sub("\n", text)


def remove_controls(text: str) -> str:
    """Leave out terminal escapes, control characters but tabs and line ends, and what is no character."""
    return _CONTROL.sub("", str(_ftfy("fixes").remove_terminal_escapes(text)))


def remove_invisible(text: str) -> str:
    """Leave out invisible characters where no orthography needs them."""
    text = _INVISIBLE.sub("", text)
    return text if _RIGHT_TO_LEFT.search(text) else _DIRECTION.sub("", text)


def compose(text: str) -> str:
    """Normal form C."""
    return unicodedata.normalize("NFC", text)


def trim_lines(text: str) -> str:
    """Leave out white space at ends of lines, and blank lines beyond one."""
    return _BLANK_LINES.sub("\n\n", "\n".join(line.rstrip() for line in text.split("\n")))


def _ftfy(module: str) -> Any:
    return library(f"ftfy.{module}", "ftfy", "repair text")
