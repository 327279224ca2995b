#include "shingles.h"

#include <utility>

#include "characters.h"
#include "checks.h"
#include "hashing.h"

namespace megatron_ext {
namespace {

constexpr std::size_t kCodePoints = 0x110000;

std::uint64_t chained(std::uint64_t hash, std::uint64_t next) {
  return mixed((hash + 0x9E3779B97F4A7C15u) ^ next);
}

// The latest `length` units of a text, and a hash of all of them whenever one more has come.
class Window {
 public:
  Window(std::size_t length, std::vector<std::uint64_t>& hashes) : units_(length), hashes_(hashes) {}

  void add(std::uint64_t unit) {
    units_[next_] = unit;
    if (++next_ == units_.size()) next_ = 0;
    if (++seen_ < units_.size()) return;
    std::uint64_t hash = 0;
    for (std::size_t i = next_; i < units_.size(); ++i) hash = chained(hash, units_[i]);
    for (std::size_t i = 0; i < next_; ++i) hash = chained(hash, units_[i]);
    hashes_.push_back(hash);
  }

 private:
  std::vector<std::uint64_t> units_;
  std::size_t next_ = 0;
  std::size_t seen_ = 0;
  std::vector<std::uint64_t>& hashes_;
};

// Gathers folded characters to words, or takes each as a unit.
template <ShingleUnit unit>
class Units {
 public:
  explicit Units(Window window) : window_(std::move(window)) {}

  void add(std::uint32_t character) {
    after_digit_ = false;
    if constexpr (unit == ShingleUnit::kCharacter) {
      window_.add(mixed(character));
    } else {
      word_ = chained(word_, character);
      in_word_ = true;
    }
  }

  void add_digit() {
    if (after_digit_) return;
    add('0');
    after_digit_ = true;
  }

  void end_word() {
    after_digit_ = false;
    if (!in_word_) return;
    window_.add(word_);
    word_ = 0;
    in_word_ = false;
  }

 private:
  Window window_;
  std::uint64_t word_ = 0;
  bool in_word_ = false;
  bool after_digit_ = false;
};

template <ShingleUnit unit>
void append(std::string_view text, const std::vector<std::uint32_t>& folds,
            const std::vector<std::uint32_t>& expansions, Units<unit> units) {
  const auto* next = reinterpret_cast<const std::uint8_t*>(text.data());
  const auto* end = next + text.size();
  while (next < end) {
    const auto length = valid_utf8_length(next, end);
    require_argument(length > 0, "a text is not UTF-8");
    const auto fold = folds[decode_utf8(next, length)];
    next += length;
    if (fold < kCodePoints) {
      units.add(fold);
    } else if (fold == Folding::kSeparator) {
      units.end_word();
    } else if (fold == Folding::kDigit) {
      units.add_digit();
    } else if (fold != Folding::kDropped) {
      const auto start = (fold - Folding::kExpansion) >> 4;
      for (std::size_t i = 0; i < (fold & 15); ++i) units.add(expansions[start + i]);
    }
  }
  units.end_word();
}

}  // namespace

Folding::Folding(std::vector<std::uint32_t> folds, std::vector<std::uint32_t> expansions)
    : folds_(std::move(folds)), expansions_(std::move(expansions)) {
  require_argument(folds_.size() == kCodePoints, "there are ", folds_.size(), " folds, not one a code point");
  for (const auto fold : folds_) {
    const bool special = fold <= kDigit;
    const bool inside =
        fold >= kExpansion && ((fold - kExpansion) >> 4) + std::size_t{fold & 15} <= expansions_.size();
    require_argument(special || inside, "there is no fold ", fold);
  }
}

void Folding::append_shingles(std::string_view text, ShingleUnit unit, std::size_t length,
                              std::vector<std::uint64_t>& hashes) const {
  require_argument(length > 0, "a shingle has at least one unit");
  Window window(length, hashes);
  if (unit == ShingleUnit::kWord) {
    append(text, folds_, expansions_, Units<ShingleUnit::kWord>(std::move(window)));
  } else {
    append(text, folds_, expansions_, Units<ShingleUnit::kCharacter>(std::move(window)));
  }
}

}  // namespace megatron_ext
