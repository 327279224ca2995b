"""Repetition beside datatrove's own functions, which FineWeb and FineWeb2 were made with."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multilingual import udhr
from test_quality import counted

gopher = pytest.importorskip("datatrove.pipeline.filters.gopher_repetition_filter")

# Words of one text: many repetitions, and none of the white space that we do not count as a part of a line.
repetitive = st.lists(
    st.lists(st.sampled_from(["one", "two", "three", "四"]), min_size=1, max_size=8).map(" ".join),
    min_size=1,
    max_size=30,
).flatmap(lambda lines: st.sampled_from(["\n", "\n\n"]).map(lambda end: end.join(lines)))


def check(text: str) -> None:
    (found,) = counted([text], 0)
    words = text.split()
    for n in range(5, 11):
        assert found[f"duplicate_{n}gram"] == gopher.find_all_duplicate(words, n)
    for n in (2, 3, 4):
        ngrams = gopher.get_n_grams(words, n)
        often = bool(ngrams) and max(map(ngrams.count, ngrams)) >= 4
        assert found[f"top_{n}gram"] == (gopher.find_top_duplicate(ngrams) if often else 0)
    lines = [line for line in text.split("\n") if line]
    assert (found["duplicate_lines"], found["duplicate_line_characters"]) == gopher.find_duplicates(lines)
    paragraphs = gopher.find_duplicates(text.split("\n\n"))
    assert (found["duplicate_paragraphs"], found["duplicate_paragraph_characters"]) == paragraphs


@given(repetitive)
@settings(deadline=None)
def test_repetition_is_datatroves(text: str) -> None:
    check(text)


def test_repetition_of_real_text_is_datatroves() -> None:
    for article in udhr()[::160]:
        check("\n".join(" ".join(line.split()) for line in article["text"].split("\n") if line.strip()))
