// How much of a text is said more than once, as Gopher measures it (Rae et al. 2021, arXiv 2112.11446, table
// A1).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace megatron_ext {

// A text as units, words or characters, of which only a hash and a number of characters are known.
class Units {
 public:
  // `hash` is well mixed; equal units have equal ones.
  void add(std::uint64_t hash, std::size_t characters);

  std::size_t size() const { return prefix_hashes_.size() - 1; }
  std::size_t characters(std::size_t start, std::size_t length) const {
    return prefix_characters_[start + length] - prefix_characters_[start];
  }

  // Of the units from `start`, wherever they are; `factor` is factor_of(length).
  std::uint64_t hash(std::size_t start, std::size_t length, std::uint64_t factor) const {
    return prefix_hashes_[start + length] - prefix_hashes_[start] * factor;
  }
  static std::uint64_t factor_of(std::size_t length);

 private:
  std::vector<std::uint64_t> prefix_hashes_ = {0};  // polynomials of the hashes, modulo 2^64
  std::vector<std::size_t> prefix_characters_ = {0};
};

struct Repetition {
  static constexpr std::size_t kTop = 2, kDuplicate = 5, kEnd = 11;  // words of the n-grams
  // Any sentence has an n-gram twice now and then, and in a short text two are a large part.
  static constexpr std::uint32_t kFewest = 4;

  // In all occurrences of the most frequent n-gram of 2 to 4 words, the first of several; 0 where none occurs
  // kFewest times. With the spaces between its words.
  std::array<std::int64_t, kDuplicate - kTop> top_characters{};
  // In n-grams of 5 to 10 words that occurred before, read from left to right without overlap. Without
  // spaces.
  std::array<std::int64_t, kEnd - kDuplicate> duplicate_characters{};
};

// A word is one unit, or `units_per_word` of them without spaces between. Throws above 2^32 - 2 units.
Repetition repetition_of(const Units& units, std::size_t units_per_word, bool spaced);

}  // namespace megatron_ext
