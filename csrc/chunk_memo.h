// Remembers the ids of chunks of text. A cache: it grows to a bound, and then what is new takes the place of
// what was there.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace megatron_ext {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "keys are cut out of words from their low end");

// Holds chunks of up to 8 * kWords bytes that have up to kMaxIds ids. A slot is half of a cache line, or
// whole ones.
template <std::size_t kWords, std::size_t kMaxIds, std::size_t kMaxSlots>
class ChunkMemo {
 public:
  static constexpr std::size_t kMaxBytes = 8 * kWords;
  static constexpr std::size_t kIdsPerSlot = kMaxIds;

  // A chunk, compared byte for byte: padded with zeros to whole words, and its size.
  struct Key {
    std::array<std::uint64_t, kWords> words;
    std::uint32_t size;
  };

  struct alignas(32) Slot {
    std::array<std::uint64_t, kWords> words;
    std::array<std::uint32_t, kMaxIds> ids;
    std::uint16_t size;  // of the chunk, 0 in an empty slot
    std::uint16_t num_ids;

    bool holds(const Key& key) const {
      std::uint64_t difference = size ^ key.size;
      for (std::size_t i = 0; i < kWords; ++i) difference |= words[i] ^ key.words[i];
      return difference == 0;
    }
  };
  static_assert(sizeof(Slot) == 8 * kWords + 4 * kMaxIds + 4, "no padding");

  ChunkMemo() : slots_(kFirstSlots) {}

  // Reads kMaxBytes from `chunk` on, whatever its size is (1 to kMaxBytes).
  static Key key_of(const std::uint8_t* chunk, std::size_t size) {
    Key key;
    for (std::size_t i = 0; i < kWords; ++i) {
      std::uint64_t word;
      std::memcpy(&word, chunk + 8 * i, sizeof word);
      const std::size_t used = size > 8 * i ? std::min<std::size_t>(size - 8 * i, 8) : 0;
      key.words[i] = used == 8 ? word : word & ((std::uint64_t{1} << 8 * used) - 1);
    }
    key.size = static_cast<std::uint32_t>(size);
    return key;
  }

  // Where to look for `key`.
  std::size_t home_of(const Key& key) const {
    std::uint64_t hash = key.size;
    for (const auto word : key.words) {
      hash = (hash ^ word) * 0xD6E8FEB86659FD93u;
      hash ^= hash >> 32;
    }
    return hash & (slots_.size() - 1);
  }

  void prefetch(std::size_t home) const { __builtin_prefetch(&slots_[home]); }

  // nullptr where the chunk is not known.
  const Slot* find(const Key& key, std::size_t home) const {
    for (std::size_t probe = 0; probe < kProbes; ++probe) {
      const Slot& slot = slots_[(home + probe) & (slots_.size() - 1)];
      if (slot.holds(key)) return &slot;
    }
    return nullptr;
  }

  // Remembers a chunk that find() does not find. `num_ids` is at most kMaxIds.
  void add(const Key& key, const std::uint32_t* ids, std::size_t num_ids) {
    if (2 * num_used_ >= slots_.size() && slots_.size() < kMaxSlots) grow();
    Slot& slot = free_slot(home_of(key));
    if (slot.size == 0) ++num_used_;
    slot.words = key.words;
    std::copy(ids, ids + num_ids, slot.ids.begin());
    slot.size = static_cast<std::uint16_t>(key.size);
    slot.num_ids = static_cast<std::uint16_t>(num_ids);
  }

 private:
  static constexpr std::size_t kFirstSlots = 1024;
  static constexpr std::size_t kProbes = 4;

  // An empty slot where find() looks, else the first of them, whose chunk is forgotten.
  Slot& free_slot(std::size_t home) {
    for (std::size_t probe = 0; probe < kProbes; ++probe) {
      Slot& slot = slots_[(home + probe) & (slots_.size() - 1)];
      if (slot.size == 0) return slot;
    }
    return slots_[home];
  }

  void grow() {
    std::vector<Slot> old(2 * slots_.size());
    old.swap(slots_);
    num_used_ = 0;
    for (const Slot& slot : old) {
      if (slot.size == 0) continue;
      Slot& place = free_slot(home_of(Key{slot.words, slot.size}));
      if (place.size == 0) ++num_used_;
      place = slot;
    }
  }

  std::vector<Slot> slots_;
  std::size_t num_used_ = 0;
};

}  // namespace megatron_ext
