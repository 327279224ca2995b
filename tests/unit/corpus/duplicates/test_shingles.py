"""Against shingles made by Python's own Unicode functions and regular expressions."""

import itertools
import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_ext import _C
from megatron_ext.corpus.duplicates.folding import folding

LETTERS = st.sampled_from(
    "aAbéßΣςİĳ한글กำ中々\u0301\u00ad\u200d01٣٤ \n\t.,-—'।\U0001d4b3\U0001f600\u0000ﬁÅ\U000e0041"
)
TEXTS = st.text(st.one_of(LETTERS, st.characters(exclude_categories=["Cs"])), max_size=40)


def folded(text: str) -> str:
    dropped = ("Mn", "Cf")
    decomposed = unicodedata.normalize("NFD", "".join(character.casefold() for character in text))
    kept = "".join(one for one in decomposed if unicodedata.category(one) not in dropped)
    with_breaks = "".join(
        " " if unicodedata.category(one)[0] in "PSZ" or unicodedata.category(one) == "Cc" else one
        for one in kept
    )
    return re.sub(r"\d+", "0", with_breaks)


def shingles(text: str, by_words: bool, length: int) -> list[tuple[str, ...]]:
    units = folded(text).split(" ") if by_words else list(folded(text).replace(" ", ""))
    units = [unit for unit in units if unit]
    return [tuple(units[i : i + length]) for i in range(len(units) - length + 1)]


@given(texts=st.lists(TEXTS, max_size=6), by_words=st.booleans(), length=st.integers(1, 4))
def test_one_hash_for_every_shingle_and_no_other_for_an_equal_one(
    texts: list[str], by_words: bool, length: int
) -> None:
    hashes, offsets = folding().shingles(texts, np.full(len(texts), by_words), length, length)
    expected = [shingles(text, by_words, length) for text in texts]
    assert np.diff(offsets).tolist() == [len(some) for some in expected]
    pairs = set(zip(itertools.chain(*expected), hashes.tolist(), strict=True))
    assert len(pairs) == len({shingle for shingle, _ in pairs}) == len({one for _, one in pairs})


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("Café ÉTÉ", "cafe\u0301 été"),
        ("co\u00adoperate now", "cooperate now"),
        ("on 31 May, 1999", "On 4 may 2000!"),
        ("ΟΔΟΣ ΔΟΞΑ", "οδος δοξα"),
        ("Straße\u00a0eins", "STRASSE — eins"),
        ("٣٤ one", "5 one"),
    ],
)
def test_what_does_not_count(text: str, other: str) -> None:
    hashes, offsets = folding().shingles([text, other], np.array([True, True]), 2, 9)
    assert offsets[1] > 0
    assert np.array_equal(hashes[: offsets[1]], hashes[offsets[1] :])


def test_line_breaks_inside_a_script_without_spaces_do_not_count() -> None:
    hashes, _ = folding().shingles(["人人生而自由,\n在尊严", "人人生而自由在尊严"], np.zeros(2, bool), 5, 9)
    assert len(hashes) == 2
    assert hashes[0] == hashes[1]


def test_the_length_is_that_of_the_unit() -> None:
    _, offsets = folding().shingles(["a b c d", "abcd"], np.array([True, False]), 3, 2)
    assert offsets.tolist() == [0, 2, 5]


def test_arguments_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="2 texts, but 1"):
        folding().shingles(["a", "b"], np.array([True]), 5, 9)
    with pytest.raises(ValueError, match="at least one unit"):
        folding().shingles(["a"], np.array([True]), 0, 9)
    with pytest.raises(ValueError, match="not one a code point"):
        _C.Folding(np.zeros(3, np.uint32), np.zeros(0, np.uint32))
