// Hashes of 64 bits for text: nobody chooses their input, and none is written to a file that outlives the
// program's version.
#pragma once

#include <cstdint>

namespace megatron_ext {

// The last two steps of SplitMix64 (Steele, Lea, Flood 2014; Stafford's variant 13): every bit of the input
// changes half of the result's, and no two inputs have one result.
inline std::uint64_t mixed(std::uint64_t value) {
  value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9u;
  value = (value ^ value >> 27) * 0x94D049BB133111EBu;
  return value ^ value >> 31;
}

}  // namespace megatron_ext
