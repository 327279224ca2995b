"""What each code point is, as far as cleaning goes: the table that `_C.CharacterClasses` looks characters up in."""

import functools
import sys
import unicodedata

import numpy as np
from numpy.typing import NDArray

from megatron_ext._C import CharacterClasses
from megatron_ext.corpus.labels.libraries import library

# Unicode's property Sentence_Terminal (PropList.txt, version 16), and the Tibetan shads, which it leaves out.
SENTENCE_ENDS = (
    "21 2E 3F 589 61D-61F 6D4 700-702 7F9 837 839 83D-83E 964-965 F0D-F11 F14 104A-104B 1362 1367-1368 166E 1735-1736 "
    "17D4-17D5 1803 1809 1944-1945 1AA8-1AAB 1B4E-1B4F 1B5A-1B5B 1B5E-1B5F 1B7D-1B7F 1C3B-1C3C 1C7E-1C7F 2024 "
    "203C-203D 2047-2049 2CF9-2CFB 2E2E 2E3C 2E53-2E54 2E60-2E61 3002 A4FF A60E-A60F A6F3 A6F7 A876-A877 A8CE-A8CF "
    "A92F A9C8-A9C9 AA5D-AA5F AAF0-AAF1 ABEB FE12 FE15-FE16 FE52 FE56-FE57 FF01 FF0E FF1F FF61 10A56-10A57 10F55-10F59 "
    "10F86-10F89 11047-11048 110BE-110C1 11141-11143 111C5-111C6 111CD 111DE-111DF 11238-11239 1123B-1123C 112A9 "
    "113D4-113D5 1144B-1144C 115C2-115C3 115C9-115D7 11641-11642 1173C-1173E 11944 11946 11A42-11A43 11A9B-11A9C "
    "11C41-11C42 11EF7-11EF8 11F43-11F44 16A6E-16A6F 16AF5 16B37-16B38 16B44 16D6E-16D6F 16E98 1BC9F 1DA88"
)
# Tibetan tsheg parts syllables, Ethiopic wordspace parts words, and so does the zero-width space.
WORD_SEPARATORS = "F0B-F0C 1361 200B"
CLOSING = (
    "22 27 29 5D 7D"  # and all of the categories Pe, Pf and Pi: some languages close with what others open
)
BULLETS = "2D 2022 2023 2043 25AA 25CF 25CB 25E6"
ODD_LINE_ENDS = "B-D 1C-1E 85 2028-2029"  # where Python's splitlines ends a line, but for \n
BYTE_ORDER_MARK, OBJECT_REPLACEMENT = "FEFF", "FFFC"
NONCHARACTERS = "FDD0-FDEF FFFE-FFFF"
ANNOTATION = "FFF9-FFFB"
# Soft hyphen, zero-width space and joiners, word joiner and invisible operators, directions.
JOINERS = "200C-200D"
DIRECTIONS = "61C 200E-200F 202A-202E 2066-2069"
INVISIBLE = f"AD 200B 2060-2064 {JOINERS} {DIRECTIONS}"
CONTROLS = f"{BYTE_ORDER_MARK} {OBJECT_REPLACEMENT} {NONCHARACTERS} {ANNOTATION}"  # and category Cc


def points(ranges: str) -> list[int]:
    """Code points of hexadecimal ranges: ``"21 2E-2F"``."""
    found: list[int] = []
    for item in ranges.split():
        first, _, last = item.partition("-")
        found.extend(range(int(first, 16), int(last or first, 16) + 1))
    return found


def character_set(ranges: str) -> str:
    """The inside of a regular expression's square brackets for hexadecimal ranges."""
    ends = (item.split("-") for item in ranges.split())
    return "".join("-".join(f"\\U{int(end, 16):08X}" for end in pair) for pair in ends)


@functools.cache
def character_classes() -> CharacterClasses:
    """The table, made once a process.

    Raises:
        MissingDependencyError: ftfy is not installed.
    """
    flags = CharacterClasses.FLAGS
    classes = np.zeros(sys.maxunicode + 1, np.uint16)
    categories = np.array([unicodedata.category(chr(point)) for point in range(sys.maxunicode + 1)])
    majors = categories.astype("U1")
    classes[majors == "L"] |= flags["letter"]
    classes[majors == "N"] |= flags["digit"]
    classes[(majors == "P") | (majors == "S")] |= flags["symbol"]
    classes[np.isin(categories, ("Pe", "Pf", "Pi"))] |= flags["closing"]
    classes[categories == "Cc"] |= flags["control"]
    spaces = [point for point in range(0x10000) if chr(point).isspace()]
    classes[spaces] |= flags["space"] | flags["separator"]
    classes[[ord("\t"), ord("\n"), *points(ODD_LINE_ENDS)]] &= np.uint16(~flags["control"] & 0xFFFF)
    for name, ranges in (
        ("separator", WORD_SEPARATORS),
        ("sentence_end", SENTENCE_ENDS),
        ("closing", CLOSING),
        ("bullet", BULLETS),
        ("odd_line_end", ODD_LINE_ENDS),
        ("control", CONTROLS),
        ("invisible", INVISIBLE),
    ):
        classes[points(ranges)] |= flags[name]
    _add_mojibake(classes)
    classes[_composing()] |= flags["composing"]
    return CharacterClasses(classes)


def _add_mojibake(classes: NDArray[np.uint16]) -> None:
    """Flag what ftfy's heuristic (``ftfy.badness``, version 6) looks for, so that text without it is not searched.

    Each of its patterns has two characters of its categories side by side, one of them of those that are no letters
    of ordinary text (Ù and uppercase accented letters are among those), or one character of the last lines.
    """
    flags = CharacterClasses.FLAGS
    categories = library("ftfy.badness", "ftfy", "repair text").MOJIBAKE_CATEGORIES
    ordinary = {"common", "kaomoji", "lower_accented", "lower_common", "upper_common"}
    for name, ranges in categories.items():
        classes[_expanded(ranges)] |= flags["mojibake_letter" if name in ordinary else "mojibake_sign"]
    classes[ord("Ù")] |= flags["mojibake_sign"]
    classes[_expanded(categories["c1"])] |= flags["mojibake_alone"]
    classes[[ord(character) for character in "ÂÃŒœЂ"]] |= flags["mojibake_alone"]


def _composing() -> list[int]:
    """What a text in form C may lack: characters that change, move, or become one with what is before them."""
    changed, second = set(range(0x1161, 0x11C3)), set()  # Hangul's vowels and finals compose by a formula
    for point in range(sys.maxunicode + 1):
        character = chr(point)
        if unicodedata.combining(character) or unicodedata.normalize("NFC", character) != character:
            changed.add(point)
        decomposition = unicodedata.decomposition(character).split()
        if len(decomposition) == 2 and not decomposition[0].startswith("<"):
            second.add(int(decomposition[1], 16))
    return sorted(changed | second)


def _expanded(ranges: str) -> list[int]:
    """Code points of the inside of a regular expression's square brackets."""
    found: list[int] = []
    characters = iter(enumerate(ranges))
    for place, character in characters:
        if character == "-" and 0 < place < len(ranges) - 1:
            _, last = next(characters)
            found.extend(range(found[-1] + 1, ord(last) + 1))
        else:
            found.append(ord(character))
    return found
