// Remembers the ids of short chunks of text. A cache: bounded, and what is new takes the place of what was
// there.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace megatron_ext {

class ChunkMemo {
 public:
  static constexpr std::size_t kMaxBytes = 32;  // of a chunk
  static constexpr std::size_t kMaxIds = 7;
  static constexpr std::size_t kMemory = std::size_t{16} << 20;  // bytes, used as chunks come

  // A chunk of up to kMaxBytes, padded with zeros so that it compares as a few words.
  struct Key {
    std::array<std::uint64_t, kMaxBytes / 8> words;
    std::uint32_t size;
  };

  // Reads kMaxBytes from `chunk` on, whatever `size` is.
  static Key key_of(const std::uint8_t* chunk, std::size_t size) {
    static constexpr auto kMask = [] {
      std::array<std::uint8_t, 2 * kMaxBytes> mask{};
      for (std::size_t i = 0; i < kMaxBytes; ++i) mask[i] = 0xFF;
      return mask;
    }();
    Key key;
    std::array<std::uint64_t, kMaxBytes / 8> mask;
    std::memcpy(key.words.data(), chunk, kMaxBytes);
    std::memcpy(mask.data(), kMask.data() + kMaxBytes - size, kMaxBytes);
    for (std::size_t i = 0; i < mask.size(); ++i) key.words[i] &= mask[i];
    key.size = static_cast<std::uint32_t>(size);
    return key;
  }

  // One cache line.
  struct alignas(64) Slot {
    std::array<std::uint64_t, kMaxBytes / 8> words;
    std::array<std::uint32_t, kMaxIds> ids;
    std::uint16_t size;  // of the chunk in bytes, 0 in an empty slot
    std::uint16_t num_ids;

    bool holds(const Key& key) const {
      std::uint64_t difference = size ^ key.size;
      for (std::size_t i = 0; i < words.size(); ++i) difference |= words[i] ^ key.words[i];
      return difference == 0;
    }
  };
  static_assert(sizeof(Slot) == 64);

  ChunkMemo() : slots_(kMemory / sizeof(Slot)) {}

  // Where the search for `key` starts. Prefetch it, and go on with other things meanwhile.
  std::size_t home_of(const Key& key) const {
    std::uint64_t hash = key.size;
    for (const auto word : key.words) hash = (hash ^ word) * 0xD6E8FEB86659FD93u, hash ^= hash >> 32;
    return hash % slots_.size();
  }
  void prefetch(std::size_t home) const { __builtin_prefetch(&slots_[home]); }

  // nullptr where the chunk is not known.
  const Slot* find(const Key& key, std::size_t home) const {
    for (std::size_t probe = 0; probe < kProbes; ++probe) {
      const Slot& slot = slots_[(home + probe) % slots_.size()];
      if (slot.holds(key)) return &slot;
    }
    return nullptr;
  }

  // Remembers a chunk that find() does not find. Those of more than kMaxIds ids are not kept.
  void add(const Key& key, std::size_t home, const std::uint32_t* ids, std::size_t num_ids) {
    if (num_ids > kMaxIds) return;
    std::size_t place = home;
    for (std::size_t probe = 0; probe < kProbes; ++probe) {
      if (slots_[(home + probe) % slots_.size()].size == 0) {
        place = (home + probe) % slots_.size();
        break;
      }
    }
    Slot& slot = slots_[place];
    slot.words = key.words;
    std::copy(ids, ids + num_ids, slot.ids.begin());
    slot.size = static_cast<std::uint16_t>(key.size);
    slot.num_ids = static_cast<std::uint16_t>(num_ids);
  }

 private:
  static constexpr std::size_t kProbes = 4;

  std::vector<Slot> slots_;
};

}  // namespace megatron_ext
