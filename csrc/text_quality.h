// What the rules for the quality of a text look at, counted in one pass.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "character_classes.h"
#include "repetition.h"

namespace megatron_ext {

// Lines are what lies between line feeds, without white space around it; blank ones are none. They are equal
// where their words are. Paragraphs are lines without a blank one between.
struct TextQuality {
  std::int64_t characters = 0;
  std::int64_t letters = 0;
  std::int64_t digits = 0;
  std::int64_t symbols = 0;
  std::int64_t replacements = 0;  // U+FFFD
  std::int64_t hashes = 0;        // #
  std::int64_t ellipses = 0;      // … and three dots
  std::int64_t units = 0;         // words, or characters that are no separators
  std::int64_t unit_characters = 0;
  std::int64_t letter_words = 0;  // words with a letter, however units are made
  std::int64_t lines = 0;
  std::int64_t line_characters = 0;
  std::int64_t sentence_lines = 0;  // that end as a sentence does
  std::int64_t short_lines = 0;
  std::int64_t bullet_lines = 0;
  std::int64_t ellipsis_lines = 0;  // that end with an ellipsis
  std::int64_t duplicate_lines = 0;
  std::int64_t duplicate_line_characters = 0;
  std::int64_t paragraphs = 0;
  std::int64_t duplicate_paragraphs = 0;
  std::int64_t duplicate_paragraph_characters = 0;
  Repetition repetition;
};

// `characters_per_word` is 0 where separators part words; else each character is a unit, and so many make a
// word. Throws where the text is not UTF-8.
TextQuality quality_of(std::string_view text, const CharacterClasses& classes,
                       std::size_t characters_per_word, std::int64_t short_line_characters);

}  // namespace megatron_ext
