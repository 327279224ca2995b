// Which repairs a text may need: one look at each character, so that clean text costs little.
#pragma once

#include <cstdint>
#include <string_view>

#include "character_classes.h"

namespace megatron_ext {

struct Defect {
  enum : std::uint32_t {
    kEntity = 1 << 0,       // an ampersand
    kMojibake = 1 << 1,     // characters side by side as in text that was decoded wrongly
    kLineEnd = 1 << 2,      // other than \n
    kControl = 1 << 3,      // characters
    kInvisible = 1 << 4,    // characters
    kOuterSpace = 1 << 5,   // around the text
    kLineSpace = 1 << 6,    // before a line feed
    kBlankLines = 1 << 7,   // more than one together
    kSymbolLine = 1 << 8,   // without letters and digits
    kComposition = 1 << 9,  // not in normal form C
  };
};

struct Defects {
  std::int64_t found = 0;  // flags of Defect: each may be needless, none is missing
  std::int64_t characters = 0;
  std::int64_t controls = 0;  // ASCII's: those above are rather garbled quotes
};

// Throws where the text is not UTF-8.
Defects defects_of(std::string_view text, const CharacterClasses& classes);

}  // namespace megatron_ext
