import re

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from multilingual import any_text, texts, udhr
from quality_formulas import quality

from megatron_ext._C import CharacterClasses
from megatron_ext.corpus.cleaning.characters import SENTENCE_ENDS, character_classes, points
from megatron_ext.corpus.cleaning.config import CleaningConfig
from megatron_ext.corpus.labels.detect import scripts_of


def counted(some: list[str], per_word: int, per_line: int = 30) -> list[dict[str, int]]:
    found = character_classes().quality(
        some, np.full(len(some), per_word, np.int64), np.full(len(some), per_line, np.int64)
    )
    return [dict(zip(CharacterClasses.QUALITY_COLUMNS, map(int, row), strict=True)) for row in found]


@settings(deadline=None)
@given(st.lists(texts | any_text, max_size=4), st.sampled_from([0, 1, 2, 5]), st.sampled_from([0, 8, 30]))
def test_every_count_is_the_plain_formulas(some: list[str], per_word: int, per_line: int) -> None:
    assert counted(some, per_word, per_line) == [quality(text, per_word, per_line) for text in some]


@given(st.lists(st.sampled_from("ab"), max_size=150), st.sampled_from([0, 1, 3]))
def test_repetition_is_the_plain_formulas(words: list[str], per_word: int) -> None:
    text = " ".join(words)
    assert counted([text], per_word) == [quality(text, per_word, 30)]


def test_every_count_of_real_text_is_the_plain_formulas() -> None:
    some = [article["text"] for article in udhr()[::80]]
    for per_word in (0, 2):
        assert counted(some, per_word) == [quality(text, per_word, 30) for text in some]


def test_sentences_end_as_unicode_says_and_in_tibetan() -> None:
    terminal = regex.compile(r"\p{Sentence_Terminal}")
    known = {point for point in range(0x110000) if terminal.fullmatch(chr(point))}
    assert set(points(SENTENCE_ENDS)) == known | set(map(ord, "།༎༏༐༑༔"))


def test_characters_per_word_give_as_many_words_as_in_english() -> None:
    articles = udhr()
    english = sum(len(article["text"].split()) for article in articles if article["code"] == "eng")
    scripts = scripts_of([article["text"] for article in articles])
    config = CleaningConfig()
    words: dict[str, float] = {}
    seen = set()
    for article, script in zip(articles, scripts, strict=True):
        per_word = config.filters_for(script, "mono").characters_per_word
        if per_word:
            characters = len(re.sub(r"\s", "", article["text"]))
            words[article["code"]] = words.get(article["code"], 0) + characters / per_word
            seen.add(script)
    assert seen >= {"Hani", "Jpan", "Thai", "Laoo", "Khmr", "Mymr", "Java"}
    assert {code: count for code, count in words.items() if not 0.7 < count / english < 1.3} == {}


def test_counts_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="each text has"):
        character_classes().quality(["a"], np.zeros(2, np.int64), np.zeros(1, np.int64))
    with pytest.raises(ValueError, match="a word has -1 characters"):
        counted(["a"], -1)
    with pytest.raises(ValueError, match="not one a code point"):
        CharacterClasses(np.zeros(5, np.uint16))
