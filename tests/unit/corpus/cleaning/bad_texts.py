"""For each rule a text that breaks this rule and none before it."""

import itertools

PROSE = (
    "The harbour lay quiet that morning, and only two of the boats had left before dawn. "
    "Anna counted gulls along the wall while her brother mended a torn net beside the old crane. "
    "Nobody spoke much; rain was coming, so everyone hurried to finish what could still be done outside. "
    "By noon the first drops fell on warm stone, and a smell of dust and seaweed rose from the street."
)
WORDS = ["w" + "".join(letters) for letters in itertools.product("abcdefghijkl", repeat=4)]  # of five letters
PHRASE = "alpha bravo delta gamma kappa omega sigma theta hotel india".split()  # noqa: SIM905  five letters each


def words(count: int, start: int = 0) -> str:
    """So many words, all different; those from one start differ from those of another."""
    return " ".join(WORDS[start : start + count])


def phrases(length: int, period: int) -> str:
    """A phrase of so many words twenty times, once in ``period`` characters, with different words between."""
    between = (period - 6 * length) // 6
    return " ".join(f"{' '.join(PHRASE[:length])} {words(between, number * between)}" for number in range(20))


# Rules that are off unless somebody asks for them.
ASKED: dict[str, dict[str, object]] = {
    "min_stop_words": {"min_stop_words": 2, "stop_words": ["the", "and"]},
    "min_sentence_lines": {"min_sentence_lines": 0.12},
    "max_short_lines": {"max_short_lines": 0.67},
}
BAD = {
    "max_control_share": PROSE + "\x00\x01\x02\x03" * 4,
    "max_replacement_share": PROSE.replace("e", "\ufffd"),
    "min_letters": "12345 67890 12345 67890 12345 67890",
    "min_characters": "Too short a text.",
    "max_characters": "word " * 250_000,
    "min_words": "Onlyfourlongwordsstand inthisone textwhichis notenough",
    "max_words": "ab cd ef " * 40_000,
    "lorem_ipsum": "Lorem Ipsum dolor sit amet, " + words(30),
    "max_digit_share": " ".join(f"a{number}" for number in range(1000, 1040)),
    "max_symbol_share": " ".join(f"<{word}|{word}>=-+*/{{}}" for word in WORDS[:30]),
    "min_mean_word_length": " ".join("abcdefghijklmnopqrstuvwxyz" * 2),
    "max_mean_word_length": " ".join("x" * 30 + word for word in WORDS[:20]),
    "max_hashes_per_word": "#" + " #".join(WORDS[:20]) + " " + words(80, 20),
    "max_ellipses_per_word": "… ".join(WORDS[:30]) + " " + words(30, 30),
    "max_bullet_lines": "\n".join(f"• {words(6, 6 * number)}." for number in range(20)),
    "max_ellipsis_lines": "\n".join(f"{words(30, 30 * number)}..." for number in range(4)),
    "min_letter_words": " ".join(f"{word} ~" for word in WORDS[:60]),
    "min_stop_words": words(40),
    "min_sentence_lines": "\n".join(words(20, 20 * number) for number in range(10)),
    "max_short_lines": "\n".join(words(4, 4 * number) for number in range(20)),
    "max_newlines_per_word": "\n".join(words(2, 2 * number) for number in range(40)),
    "max_duplicate_lines": "\n".join(["Again."] * 5 + [words(50, 50 * number) for number in range(6)]),
    "max_duplicate_line_characters": "\n".join(
        [words(20), words(20), *(words(20, 20 * number) for number in range(1, 7))]
    ),
    "max_duplicate_paragraphs": "\n\n".join(
        ["One.\nTwo."] * 4 + [words(60, 60 * number).replace(" ", "\n", 4) for number in range(5)]
    ),
    "max_duplicate_paragraph_characters": "\n\n".join(
        [words(9, 9 * number).replace(" ", "\n", 1) for number in (0, 0, 1, 2)]
    ),
    "max_top_2gram": phrases(2, 24),
    "max_top_3gram": phrases(3, 90),
    "max_top_4gram": phrases(4, 130),
    "max_duplicate_5gram": phrases(5, 150),
    "max_duplicate_6gram": phrases(6, 180),
    "max_duplicate_7gram": phrases(7, 230),
    "max_duplicate_8gram": phrases(8, 290),
    "max_duplicate_9gram": phrases(9, 360),
    "max_duplicate_10gram": phrases(10, 440),
}
# A paragraph that comes again has lines that do.
LOOSER: dict[str, dict[str, object]] = {
    "max_duplicate_paragraphs": {"max_duplicate_lines": None, "max_duplicate_line_characters": None},
    "max_duplicate_paragraph_characters": {
        "max_duplicate_lines": None,
        "max_duplicate_line_characters": None,
    },
}
