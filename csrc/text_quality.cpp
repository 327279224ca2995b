#include "text_quality.h"

#include "flat_map.h"
#include "hashing.h"

namespace megatron_ext {
namespace {

using Class = CharacterClass;

constexpr char32_t kReplacement = 0xFFFD;
constexpr char32_t kEllipsis = 0x2026;

std::uint64_t chained(std::uint64_t hash, std::uint64_t next) {
  return (hash ^ next) * 0x9E3779B97F4A7C15u + 0x632BE59BD9B4E019u;
}

// Lines or paragraphs that were met before.
class Seen {
 public:
  bool insert(std::uint64_t hash) {
    hash = mixed(hash) >> 1;  // FlatMap wants one value for itself
    if (map_.find(hash) != nullptr) return false;
    map_.insert_or_assign(hash, true);
    return true;
  }

 private:
  FlatMap<bool> map_;
};

class Measurement {
 public:
  Measurement(std::size_t characters_per_word, std::int64_t short_line_characters)
      : characters_per_word_(characters_per_word), short_line_characters_(short_line_characters) {}

  void add(char32_t character, std::uint16_t kind) {
    ++counts_.characters;
    if (kind & Class::kSpace) {
      end_word();
      if (character == '\n') {
        end_line();
      } else {
        ++gap_;
      }
      after_dot_ = false;
      return;
    }
    count(character, kind);
    extend_line(character, kind);
    if (kind & Class::kSeparator) {
      end_word();
    } else {
      extend_word(character, kind);
    }
  }

  TextQuality finish() {
    end_word();
    end_line();
    end_paragraph();
    counts_.units = static_cast<std::int64_t>(units_.size());
    counts_.unit_characters = static_cast<std::int64_t>(units_.characters(0, units_.size()));
    const bool spaced = characters_per_word_ == 0;
    counts_.repetition = repetition_of(units_, spaced ? 1 : characters_per_word_, spaced);
    return counts_;
  }

 private:
  void count(char32_t character, std::uint16_t kind) {
    counts_.letters += (kind & Class::kLetter) != 0;
    counts_.digits += (kind & Class::kDigit) != 0;
    counts_.symbols += (kind & Class::kSymbol) != 0;
    counts_.replacements += character == kReplacement;
    counts_.hashes += character == '#';
    if (character == '.') {
      dots_ = after_dot_ ? dots_ + 1 : 1;
      counts_.ellipses += dots_ % 3 == 0;
    } else {
      dots_ = 0;
      counts_.ellipses += character == kEllipsis;
    }
    after_dot_ = dots_ > 0;
  }

  void extend_line(char32_t character, std::uint16_t kind) {
    if (line_characters_ == 0) {
      gap_ = 0;
      counts_.bullet_lines += (kind & Class::kBullet) != 0;
      ends_sentence_ = false;
    }
    line_characters_ += gap_ + 1;
    gap_ = 0;
    ends_in_ellipsis_ = dots_ >= 3 || character == kEllipsis;
    if (!(kind & Class::kClosing)) ends_sentence_ = kind & Class::kSentenceEnd;
  }

  void extend_word(char32_t character, std::uint16_t kind) {
    word_hash_ = chained(word_hash_, character);
    ++word_characters_;
    word_has_letter_ |= (kind & Class::kLetter) != 0;
    if (characters_per_word_ > 0) units_.add(mixed(character), 1);
  }

  void end_word() {
    if (word_characters_ == 0) return;
    counts_.letter_words += word_has_letter_;
    const auto hash = mixed(word_hash_);
    if (characters_per_word_ == 0) units_.add(hash, word_characters_);
    line_hash_ = chained(line_hash_, hash);
    word_hash_ = 0;
    word_characters_ = 0;
    word_has_letter_ = false;
  }

  void end_line() {
    gap_ = 0;
    if (line_characters_ == 0) {
      end_paragraph();
      return;
    }
    ++counts_.lines;
    counts_.line_characters += line_characters_;
    counts_.sentence_lines += ends_sentence_;
    counts_.short_lines += line_characters_ <= short_line_characters_;
    counts_.ellipsis_lines += ends_in_ellipsis_;
    if (!lines_.insert(line_hash_)) {
      ++counts_.duplicate_lines;
      counts_.duplicate_line_characters += line_characters_;
    }
    paragraph_hash_ = chained(paragraph_hash_, mixed(line_hash_));
    paragraph_characters_ += line_characters_ + (paragraph_characters_ > 0);  // with the line feed between
    line_hash_ = 0;
    line_characters_ = 0;
  }

  void end_paragraph() {
    if (paragraph_characters_ == 0) return;
    ++counts_.paragraphs;
    if (!paragraphs_.insert(paragraph_hash_)) {
      ++counts_.duplicate_paragraphs;
      counts_.duplicate_paragraph_characters += paragraph_characters_;
    }
    paragraph_hash_ = 0;
    paragraph_characters_ = 0;
  }

  std::size_t characters_per_word_;
  std::int64_t short_line_characters_;
  TextQuality counts_;
  Units units_;
  Seen lines_, paragraphs_;

  std::uint64_t word_hash_ = 0, line_hash_ = 0, paragraph_hash_ = 0;
  std::size_t word_characters_ = 0;
  std::int64_t line_characters_ = 0, paragraph_characters_ = 0;
  std::int64_t gap_ = 0;  // spaces since the line's last other character
  int dots_ = 0;          // up to the last character that is no space, without one between
  bool after_dot_ = false, word_has_letter_ = false, ends_sentence_ = false, ends_in_ellipsis_ = false;
};

}  // namespace

TextQuality quality_of(std::string_view text, const CharacterClasses& classes,
                       std::size_t characters_per_word, std::int64_t short_line_characters) {
  Measurement measurement(characters_per_word, short_line_characters);
  classes.walk(text, [&](char32_t character, std::uint16_t kind) { measurement.add(character, kind); });
  return measurement.finish();
}

}  // namespace megatron_ext
