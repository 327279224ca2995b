#include "text_defects.h"

namespace megatron_ext {
namespace {

using Class = CharacterClass;

class Scan {
 public:
  void add(char32_t character, std::uint16_t kind) {
    ++defects_.characters;
    if (character == '\n') {
      end_line();
      return;
    }
    if (character == '&') found(Defect::kEntity);
    if (kind & kRare) add_rare(character, kind);
    const auto mojibake = kind & kMojibake;
    if (mojibake && previous_mojibake_ && ((mojibake | previous_mojibake_) & Class::kMojibakeSign)) {
      found(Defect::kMojibake);
    }
    previous_mojibake_ = mojibake;
    ends_in_space_ = kind & Class::kSpace;
    if (ends_in_space_) {
      if (defects_.characters == 1) found(Defect::kOuterSpace);
      return;
    }
    line_breaks_ = 0;
    line_ |= (kind & Class::kSymbol) ? kSymbols : kWords;
  }

  Defects finish() {
    if (line_breaks_ > 0 || ends_in_space_) found(Defect::kOuterSpace);
    if (line_ == kSymbols) found(Defect::kSymbolLine);
    return defects_;
  }

 private:
  static constexpr std::uint16_t kRare =
      Class::kControl | Class::kOddLineEnd | Class::kInvisible | Class::kComposing | Class::kMojibakeAlone;
  static constexpr std::uint16_t kMojibake = Class::kMojibakeLetter | Class::kMojibakeSign;
  static constexpr unsigned kSymbols = 1, kWords = 2;  // what a line has

  void found(std::int64_t defect) { defects_.found |= defect; }

  void add_rare(char32_t character, std::uint16_t kind) {
    if (kind & Class::kControl) {
      found(Defect::kControl);
      defects_.controls += character < 0x80;
    }
    if (kind & Class::kOddLineEnd) found(Defect::kLineEnd);
    if (kind & Class::kInvisible) found(Defect::kInvisible);
    if (kind & Class::kComposing) found(Defect::kComposition);
    if (kind & Class::kMojibakeAlone) found(Defect::kMojibake);
  }

  void end_line() {
    if (defects_.characters == 1) found(Defect::kOuterSpace);
    if (ends_in_space_) found(Defect::kLineSpace);
    if (line_ == kSymbols) found(Defect::kSymbolLine);
    if (++line_breaks_ > 2) found(Defect::kBlankLines);
    ends_in_space_ = false;
    line_ = 0;
    previous_mojibake_ = 0;
  }

  Defects defects_;
  bool ends_in_space_ = false;
  unsigned line_ = 0;
  int line_breaks_ = 0;  // since the last character that is no space
  int previous_mojibake_ = 0;
};

}  // namespace

Defects defects_of(std::string_view text, const CharacterClasses& classes) {
  Scan scan;
  classes.walk(text, [&](char32_t character, std::uint16_t kind) { scan.add(character, kind); });
  return scan.finish();
}

}  // namespace megatron_ext
