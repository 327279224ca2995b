// What a character is, as far as the quality of text goes; and a walk over the characters of a text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "characters.h"
#include "checks.h"

namespace megatron_ext {

struct CharacterClass {
  enum : std::uint16_t {
    kSpace = 1 << 0,
    kSeparator = 1 << 1,  // ends a word: every space, and marks between words or syllables
    kLetter = 1 << 2,
    kDigit = 1 << 3,
    kSymbol = 1 << 4,  // punctuation too
    kSentenceEnd = 1 << 5,
    kClosing = 1 << 6,  // quotes and brackets that may follow the end of a sentence
    kBullet = 1 << 7,
    kControl = 1 << 8,
    kOddLineEnd = 1 << 9,  // any but \n
    kInvisible = 1 << 10,
    kMojibakeLetter = 1 << 11,  // of a script, and of garbled text
    kMojibakeSign = 1 << 12,    // that garbled text has beside such a letter or another sign
    kMojibakeAlone = 1 << 13,   // suspicious without a neighbour
    kComposing = 1 << 14,       // perhaps not in normal form C
  };
};

// The class of every code point.
class CharacterClasses {
 public:
  // `classes` are sums of the flags above. Throws unless there is one for each code point.
  explicit CharacterClasses(std::vector<std::uint16_t> classes) : classes_(std::move(classes)) {
    require_argument(classes_.size() == 0x110000, "there are ", classes_.size(),
                     " classes, not one a code point");
  }

  // Calls visit(character, class) for each character of UTF-8 text. Throws where it is not UTF-8.
  template <typename Visit>
  void walk(std::string_view text, Visit visit) const {
    const auto* next = reinterpret_cast<const std::uint8_t*>(text.data());
    const auto* end = next + text.size();
    while (next < end) {
      const auto length = valid_utf8_length(next, end);
      require_argument(length > 0, "a text is not UTF-8");
      const auto character = decode_utf8(next, length);
      visit(character, classes_[character]);
      next += length;
    }
  }

 private:
  std::vector<std::uint16_t> classes_;
};

}  // namespace megatron_ext
