"""Which texts are removed: one threshold a rule, in the order in which they are tried. A rule is known by its key.

Where a rule was published its source stands beside it:

- Gopher: Rae et al. 2021, arXiv 2112.11446, appendix A1.1 (quality) and table A1 (repetition);
- FineWeb: Penedo et al. 2024, arXiv 2406.17557, section 3.6; FineWeb2: Penedo et al. 2025, arXiv 2506.20920, and the
  thresholds for each language in the configs of its repository;
- C4: Raffel et al. 2020, section 2.2.

The others are ours and are loose: they catch what is no text.
"""

from typing import Annotated

from pydantic import Field

from megatron_ext.config.section import Amount, Fraction, NonNegativeInt, PositiveInt, Section

Words = Annotated[tuple[str, ...], Field(strict=False)]


class FilterConfig(Section):
    """Thresholds; ``null`` switches a rule off. A share is of the text's characters, if nothing else is said."""

    # Not rules: what the counts below are counted by.
    characters_per_word: PositiveInt | None = Field(
        default=None,
        description="in scripts without spaces: so many characters count as a word; null: spaces part words",
    )
    short_line_characters: NonNegativeInt = Field(
        default=30, description="at most, in a short line (FineWeb)"
    )
    duplicate_ngram_min_words: NonNegativeInt = Field(
        default=50,
        description="shorter texts pass max_duplicate_5gram to 10gram: one phrase said twice would break them "
        "(Gopher's own least number of words)",
    )
    stop_words: Words = Field(default=(), description="of the language, for min_stop_words")

    max_control_share: Fraction | None = Field(
        default=0.01, description="control characters, before they are repaired; above it the text is binary"
    )
    max_replacement_share: Fraction | None = Field(
        default=0.01, description="U+FFFD, of text that was decoded wrongly"
    )
    min_letters: NonNegativeInt | None = 1
    min_characters: NonNegativeInt | None = 25
    max_characters: PositiveInt | None = 1_000_000
    min_words: NonNegativeInt | None = Field(
        default=5,
        description="Gopher: 50, of web pages; corpora of small languages hold paragraphs and sentences",
    )
    max_words: PositiveInt | None = Field(default=100_000, description="Gopher")
    lorem_ipsum: bool = Field(default=True, description="remove text with these words (C4)")
    max_digit_share: Fraction | None = 0.3
    max_symbol_share: Fraction | None = Field(default=0.3, description="punctuation and symbols")
    min_mean_word_length: Amount | None = Field(
        default=2.0, description="characters; Gopher 3, FineWeb2 mostly 2"
    )
    max_mean_word_length: Amount | None = Field(
        default=20.0,
        description="characters; Gopher 10, FineWeb2 8 to 16 in most languages with Latin letters",
    )
    max_hashes_per_word: Amount | None = Field(default=0.1, description="# (Gopher)")
    max_ellipses_per_word: Amount | None = Field(default=0.1, description="… and ... (Gopher)")
    max_bullet_lines: Fraction | None = Field(default=0.9, description="share of lines (Gopher)")
    max_ellipsis_lines: Fraction | None = Field(
        default=0.3, description="share of lines that end with one (Gopher)"
    )
    min_letter_words: Fraction | None = Field(
        default=0.7, description="share of words with a letter; Gopher 0.8, FineWeb2 0.71 to 0.9"
    )
    min_stop_words: NonNegativeInt | None = Field(
        default=None, description="different ones of stop_words; Gopher and FineWeb2: 2"
    )
    min_sentence_lines: Fraction | None = Field(
        default=None,
        description="share of lines that end as a sentence; FineWeb 0.12, FineWeb2 0.1 or off; off, for it is a "
        "matter of a source's layout and of a language's punctuation",
    )
    max_short_lines: Fraction | None = Field(
        default=None, description="share of lines; FineWeb 0.67, FineWeb2 off"
    )
    max_newlines_per_word: Amount | None = Field(
        default=0.3, description="blank lines apart (FineWeb, whose text has none)"
    )
    max_duplicate_lines: Fraction | None = Field(default=0.3, description="share of lines (Gopher)")
    max_duplicate_line_characters: Fraction | None = Field(
        default=0.1, description="Gopher 0.2, FineWeb 0.01, FineWeb2 0.1"
    )
    max_duplicate_paragraphs: Fraction | None = Field(default=0.3, description="share of paragraphs (Gopher)")
    max_duplicate_paragraph_characters: Fraction | None = Field(default=0.2, description="Gopher")
    # An n-gram that occurs less than four times is none, whatever its share of a short text. In texts of a hundred
    # words or more that changes nothing: what makes up so much of them occurs more often.
    max_top_2gram: Fraction | None = Field(default=0.2, description="the most frequent one (Gopher)")
    max_top_3gram: Fraction | None = Field(default=0.18, description="Gopher")
    max_top_4gram: Fraction | None = Field(default=0.16, description="Gopher")
    max_duplicate_5gram: Fraction | None = Field(
        default=0.15, description="all that occurred before (Gopher)"
    )
    max_duplicate_6gram: Fraction | None = Field(default=0.14, description="Gopher")
    max_duplicate_7gram: Fraction | None = Field(default=0.13, description="Gopher")
    max_duplicate_8gram: Fraction | None = Field(default=0.12, description="Gopher")
    max_duplicate_9gram: Fraction | None = Field(default=0.11, description="Gopher")
    max_duplicate_10gram: Fraction | None = Field(default=0.1, description="Gopher")
