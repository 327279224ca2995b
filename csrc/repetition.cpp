#include "repetition.h"

#include <numeric>

#include "checks.h"
#include "hashing.h"

namespace megatron_ext {
namespace {

constexpr std::uint64_t kBase = 0x9E3779B97F4A7C15u;  // odd, so that no unit is multiplied away

// Where the n-grams of one length start, in their order, and which of them are equal.
class Ngrams {
 public:
  Ngrams(const Units& units, const std::vector<std::uint32_t>& starts, std::size_t length) {
    std::size_t slots = 16;
    while (slots < 2 * starts.size()) slots *= 2;
    slots_.assign(slots, kEmpty);
    ngrams_.reserve(starts.size());
    const auto factor = Units::factor_of(length);
    for (const auto start : starts) {
      if (start + length > units.size()) break;
      add(start, units.hash(start, length, factor));
    }
  }

  std::size_t size() const { return ngrams_.size(); }
  std::uint32_t start(std::size_t index) const { return ngrams_[index].start; }
  std::uint32_t first(std::size_t index) const {
    return ngrams_[index].first;
  }  // index of the first equal one
  std::uint32_t count(std::size_t index) const { return ngrams_[first(index)].count; }

  std::vector<std::uint32_t> starts_of_repeated() const {
    std::vector<std::uint32_t> starts;
    for (std::size_t i = 0; i < size(); ++i) {
      if (count(i) > 1) starts.push_back(start(i));
    }
    return starts;
  }

 private:
  struct Ngram {
    std::uint64_t hash;
    std::uint32_t start;
    std::uint32_t first;
    std::uint32_t count;  // of the first: how many are equal to it
  };
  static constexpr std::uint32_t kEmpty = ~std::uint32_t{0};

  void add(std::uint32_t start, std::uint64_t hash) {
    const auto mask = slots_.size() - 1;
    auto slot = mixed(hash) & mask;
    while (slots_[slot] != kEmpty && ngrams_[slots_[slot]].hash != hash) slot = (slot + 1) & mask;
    if (slots_[slot] == kEmpty) slots_[slot] = static_cast<std::uint32_t>(size());
    const auto first = slots_[slot];
    ngrams_.push_back({hash, start, first, 0});
    ++ngrams_[first].count;
  }

  std::vector<std::uint32_t> slots_;  // indices of first ones, by hash, with open addressing
  std::vector<Ngram> ngrams_;
};

std::int64_t top_characters(const Ngrams& ngrams, const Units& units, std::size_t length,
                            std::size_t spaces) {
  std::size_t top = 0;
  std::uint32_t most = Repetition::kFewest - 1;
  for (std::size_t i = 0; i < ngrams.size(); ++i) {
    if (ngrams.count(i) > most) {
      top = i;
      most = ngrams.count(i);
    }
  }
  if (most < Repetition::kFewest) return 0;
  return static_cast<std::int64_t>(most * (units.characters(ngrams.start(top), length) + spaces));
}

std::int64_t duplicate_characters(const Ngrams& ngrams, const Units& units, std::size_t length) {
  std::vector<bool> seen(ngrams.size());
  std::size_t characters = 0, next = 0;
  for (std::size_t i = 0; i < ngrams.size(); ++i) {
    if (ngrams.start(i) < next) continue;
    if (seen[ngrams.first(i)]) {
      characters += units.characters(ngrams.start(i), length);
      next = ngrams.start(i) + length;
    }
    seen[ngrams.first(i)] = true;
  }
  return static_cast<std::int64_t>(characters);
}

}  // namespace

void Units::add(std::uint64_t hash, std::size_t characters) {
  prefix_hashes_.push_back(prefix_hashes_.back() * kBase + hash);
  prefix_characters_.push_back(prefix_characters_.back() + characters);
}

std::uint64_t Units::factor_of(std::size_t length) {
  std::uint64_t factor = 1;
  for (std::size_t i = 0; i < length; ++i) factor *= kBase;
  return factor;
}

Repetition repetition_of(const Units& units, std::size_t units_per_word, bool spaced) {
  require_argument(units.size() < ~std::uint32_t{0}, "a text has ", units.size(), " words or characters");
  Repetition found;
  // An n-gram occurs twice only where the shorter one at its start does: most are gone after the first round.
  std::vector<std::uint32_t> starts(units.size());
  std::iota(starts.begin(), starts.end(), 0u);
  for (std::size_t words = Repetition::kTop; words < Repetition::kEnd && !starts.empty(); ++words) {
    const auto length = words * units_per_word;
    const Ngrams ngrams(units, starts, length);
    if (words < Repetition::kDuplicate) {
      found.top_characters[words - Repetition::kTop] =
          top_characters(ngrams, units, length, spaced ? words - 1 : 0);
    } else {
      found.duplicate_characters[words - Repetition::kDuplicate] =
          duplicate_characters(ngrams, units, length);
    }
    starts = ngrams.starts_of_repeated();
  }
  return found;
}

}  // namespace megatron_ext
