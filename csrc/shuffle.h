// A permutation of 0 … size - 1 that is computed, not stored.
#pragma once

#include <array>
#include <cstdint>

namespace megatron_ext {

// One well mixed key from two values, so that neighbouring epochs (or sets) have unrelated permutations.
std::uint64_t combine_keys(std::uint64_t first, std::uint64_t second);

// A Feistel network over the smallest power of two that holds `size` values, halves of unequal width where
// its exponent is odd. A result outside of the range is encrypted again ("cycle walking"): at most one more
// round trip on average, since more than half of the domain is inside.
class Permutation {
 public:
  Permutation(std::uint64_t size, std::uint64_t key);   // size > 0
  std::uint64_t operator()(std::uint64_t index) const;  // index < size

 private:
  static constexpr int kRounds = 12;  // with 8, the order of five to seven values is measurably uneven

  std::uint64_t encrypt(std::uint64_t value) const;

  std::uint64_t size_;
  int low_bits_;
  std::uint64_t low_mask_;
  std::uint64_t high_mask_;
  std::array<std::uint64_t, kRounds> keys_;
};

}  // namespace megatron_ext
