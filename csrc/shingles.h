// Hashes of a text's shingles: the runs of n words or n characters that MinHash compares texts by.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace megatron_ext {

// What a shingle is made of. Characters are for scripts that put no space between words.
enum class ShingleUnit : std::uint8_t { kWord, kCharacter };

// What becomes of a character before it is compared: itself, one or more others, nothing, or the end of a
// word.
class Folding {
 public:
  static constexpr std::uint32_t kDropped = 0x110000;
  static constexpr std::uint32_t kSeparator = 0x110001;
  static constexpr std::uint32_t kDigit = 0x110002;      // a run of digits counts as one
  static constexpr std::uint32_t kExpansion = 0x200000;  // + 16 · start + length, within `expansions`

  // `folds` has an entry for every code point, `expansions` the characters of those that become several.
  // Throws where an entry is none of the above.
  Folding(std::vector<std::uint32_t> folds, std::vector<std::uint32_t> expansions);

  // Appends the hash of each of the text's shingles in their order, none where it has fewer than `length`
  // units. Throws where the text is not UTF-8.
  void append_shingles(std::string_view text, ShingleUnit unit, std::size_t length,
                       std::vector<std::uint64_t>& hashes) const;

 private:
  std::vector<std::uint32_t> folds_;
  std::vector<std::uint32_t> expansions_;
};

}  // namespace megatron_ext
