import re
import unicodedata

import ftfy
import pytest
from ftfy.badness import MOJIBAKE_CATEGORIES, is_bad
from hypothesis import given, settings
from hypothesis import strategies as st
from multilingual import any_text, texts

from megatron_ext._C import CharacterClasses
from megatron_ext.corpus.cleaning import boilerplate, repairs
from megatron_ext.corpus.cleaning.characters import character_classes
from megatron_ext.corpus.cleaning.config import RepairConfig
from megatron_ext.corpus.cleaning.mending import mend, steps

GARBLED_AS = ("latin-1", "cp1252", "cp1251", "cp1250", "cp1253", "cp1257", "mac-roman", "cp437")
garbled = st.tuples(texts | any_text, st.sampled_from(GARBLED_AS)).map(
    lambda pair: pair[0].encode().decode(pair[1], "replace")
)
MOJIBAKE = re.compile(f"[{''.join(MOJIBAKE_CATEGORIES.values())}]")
suspicious = st.text(
    st.sampled_from([chr(point) for point in range(0x80, 0x10000) if MOJIBAKE.match(chr(point))])
    | st.sampled_from("aAzZ .,!°à√≈\u201aвЂВГРСўβΒΓΞΟāØÙÐ×"),  # noqa: RUF001
    max_size=12,
)


def defects(text: str) -> set[str]:
    found = int(character_classes().defects([text])[0, 0])
    return {name for name, flag in CharacterClasses.DEFECTS.items() if found & flag}


def mended(text: str, has_boilerplate: bool = True, **off: bool | int) -> tuple[str, list[str]]:
    found = int(character_classes().defects([text])[0, 0])
    return mend(text, found, has_boilerplate, steps(RepairConfig(**off)))


@settings(deadline=None, max_examples=500)
@given(suspicious | garbled | texts | any_text)
def test_no_text_that_ftfy_would_mend_is_passed_over(text: str) -> None:
    if is_bad(text):
        assert "mojibake" in defects(text)


@settings(deadline=None)
@given(texts | any_text | garbled)
def test_no_defect_is_passed_over(text: str) -> None:
    found = defects(text)
    for name, repair in (
        ("composition", repairs.compose),
        ("line_end", repairs.unify_line_ends),
        ("control", repairs.remove_controls),
        ("invisible", repairs.remove_invisible),
        ("entity", repairs.unescape_html),
        ("symbol_line", boilerplate.blank_symbol_lines),
    ):
        assert name in found or repair(text) == text
    assert found & {"line_space", "blank_lines", "outer_space"} or repairs.trim_lines(text) == text
    assert "outer_space" in found or text.strip() == text


@settings(deadline=None)
@given(texts | garbled)
def test_what_is_mended_is_left_alone(text: str) -> None:
    once, _ = mended(text, html_entities=False, mojibake=False)
    assert mended(once, html_entities=False, mojibake=False) == (once, [])
    assert unicodedata.is_normalized("NFC", once)
    assert once == once.strip()
    assert "\n\n\n" not in once


@pytest.mark.parametrize(
    ("text", "repaired", "key"),
    [
        ("L&rsquo;&eacute;t&eacute; &amp; l&#39;hiver", "L’été & l'hiver", "html_entities"),
        ("voilÃ\xa0 le cafÃ©", "voilà le café", "mojibake"),
        ("qu\x92el", "qu’el", "mojibake"),
        ("РџСЂРёРІРµС\u201a РјРёСЂ", "Привет мир", "mojibake"),
        ("one\r\ntwo\u2028three\x0bfour", "one\ntwo\nthree\nfour", "line_ends"),
        ("a\x00b\ufeff\x1b[31mc\tﬁ", "abc\tﬁ", "control_characters"),
        ("hy\u00adphen zero\u200bwidth l\u200erm", "hyphen zerowidth lrm", "invisible_characters"),
        ("e\u0301\u1100\u1161", "é가", "composition"),
        ("Text.\nWe use cookies to improve it.\nMore.", "Text.\nMore.", "boilerplate_lines"),
        ("one  \n \n \n\ntwo\n", "one\n\ntwo", "white_space"),
    ],
)
def test_each_defect_has_its_repair(text: str, repaired: str, key: str) -> None:
    assert mended(text) == (repaired, [key])
    assert key not in mended(text, **{key: False})[1]


def test_a_next_line_character_is_an_ellipsis_of_windows_1252_if_it_can_be() -> None:
    assert mended("one\x85two") == ("one…two", ["mojibake"])
    assert mended("one\x85two", mojibake=False) == ("one\ntwo", ["line_ends"])


def test_symbol_lines_part_paragraphs() -> None:
    assert mended("one\n* * *\ntwo") == ("one\n\ntwo", ["symbol_lines"])
    assert mended("one\n***", white_space=False) == ("one\n", ["symbol_lines"])


def test_a_defect_that_a_repair_uncovers_is_mended_too() -> None:
    assert mended("caf&Atilde;&copy; &zwj;x") == (
        "café x",
        ["html_entities", "mojibake", "invisible_characters"],
    )
    assert mended("one\n\nuse cookies\n\ntwo") == ("one\n\ntwo", ["boilerplate_lines", "white_space"])


def test_markup_keeps_its_entities_and_paragraphs_their_cookies() -> None:
    assert mended("<b>&lt;</b>") == ("<b>&lt;</b>", [])
    long = "A cookie policy is a text. " * 10
    assert mended(long.strip()) == (long.strip(), [])


@pytest.mark.parametrize(
    "text",
    [
        "می\u200cخواهم",  # noqa: RUF001  Persian needs the non-joiner,
        "ක්\u200dරි",  # Sinhala the joiner,
        "क्\u200dष ক্\u200cষ",  # and so do the scripts of India,
        "ភាសា\u200bខ្មែរ สวัสดี\u200bครับ",  # Southeast Asia parts words without showing it,
        "👩\u200d👩\u200d👧 ❤\ufe0f",  # emoji are joined,
        "שלום\u200f (abc) עולם",  # and marks of direction order mixed text.
        "«Ça», ¿qué? — “naïf” ½ Œuvre, l’été à Ñuñoa, Ðà Nẵng",
    ],
)
def test_what_orthography_needs_is_kept(text: str) -> None:
    assert unicodedata.is_normalized("NFC", text)
    assert mended(text) == (text, [])


def test_a_line_that_comes_again_and_again_stays_once() -> None:
    text = "\n".join(f"Header\nline {number}" for number in range(4))
    expected = "\n".join(["Header", *(f"line {number}" for number in range(4))])
    assert mended(text, max_line_repeats=3) == (expected, ["max_line_repeats"])
    assert mended(text, max_line_repeats=4) == (text, [])


@settings(deadline=None)
@given(garbled)
def test_mojibake_is_what_ftfy_mends(text: str) -> None:
    fixes = [name for name in ftfy.TextFixerConfig._fields if name.startswith(("fix", "un", "remove"))]
    only = dict.fromkeys(fixes, False) | {
        "fix_encoding": True,
        "fix_c1_controls": True,
        "normalization": None,
    }
    config = ftfy.TextFixerConfig(**only)
    assert repairs.repair_mojibake(text) == ftfy.fix_text(text, config)
