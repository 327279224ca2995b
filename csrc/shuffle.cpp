#include "shuffle.h"

#include "checks.h"

namespace megatron_ext {
namespace {

constexpr std::uint64_t kGoldenRatio = 0x9E3779B97F4A7C15u;

// The finaliser of SplitMix64: every input bit flips every output bit with probability near one half.
std::uint64_t scramble(std::uint64_t x) {
  x ^= x >> 30;
  x *= 0xBF58476D1CE4E5B9u;
  x ^= x >> 27;
  x *= 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

int bit_width(std::uint64_t value) {
  int bits = 0;
  for (; value > 0; value >>= 1) ++bits;
  return bits;
}

constexpr std::uint64_t mask(int bits) { return (std::uint64_t{1} << bits) - 1; }

}  // namespace

std::uint64_t combine_keys(std::uint64_t first, std::uint64_t second) {
  return scramble(scramble(first + kGoldenRatio) + second * kGoldenRatio);
}

Permutation::Permutation(std::uint64_t size, std::uint64_t key) : size_(size) {
  require_argument(size > 0 && size <= (std::uint64_t{1} << 62), "a permutation is of 1 to 2^62 values, not ",
                   size);
  const int bits = bit_width(size - 1);
  low_bits_ = bits / 2;
  low_mask_ = mask(low_bits_);
  high_mask_ = mask(bits - low_bits_);
  for (auto& round_key : keys_) {
    key += kGoldenRatio;
    round_key = scramble(key);
  }
}

std::uint64_t Permutation::operator()(std::uint64_t index) const {
  require_argument(index < size_, "index ", index, " is outside of a permutation of ", size_);
  do {
    index = encrypt(index);
  } while (index >= size_);  // ends: the walk is a cycle through the index it started from
  return index;
}

std::uint64_t Permutation::encrypt(std::uint64_t value) const {
  std::uint64_t low = value & low_mask_;
  std::uint64_t high = value >> low_bits_;
  for (int round = 0; round < kRounds; round += 2) {
    high ^= scramble(low ^ keys_[static_cast<std::size_t>(round)]) & high_mask_;
    low ^= scramble(high ^ keys_[static_cast<std::size_t>(round) + 1]) & low_mask_;
  }
  return (high << low_bits_) | low;
}

}  // namespace megatron_ext
