// A hash map in one array, with open addressing: a lookup touches one cache line most of the time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace megatron_ext {

template <typename Value>
class FlatMap {
 public:
  static constexpr std::uint64_t kNoKey = ~std::uint64_t{0};  // may not be inserted

  FlatMap() : slots_(16, Slot{kNoKey, Value{}}) {}

  bool empty() const { return size_ == 0; }

  void insert_or_assign(std::uint64_t key, Value value) {
    if (2 * (size_ + 1) > slots_.size()) grow();
    Slot& slot = slots_[index_of(key)];
    if (slot.key == kNoKey) ++size_;
    slot = Slot{key, std::move(value)};
  }

  // nullptr where there is none; valid until the next insertion.
  const Value* find(std::uint64_t key) const {
    const Slot& slot = slots_[index_of(key)];
    return slot.key == kNoKey ? nullptr : &slot.value;
  }

 private:
  struct Slot {
    std::uint64_t key;
    Value value;
  };

  // Where `key` is, or the empty slot where it would go. At least half of the slots are empty.
  std::size_t index_of(std::uint64_t key) const {
    std::uint64_t hash = (key ^ key >> 32) * 0xD6E8FEB86659FD93u;
    hash ^= hash >> 32;
    const std::size_t mask = slots_.size() - 1;
    for (std::size_t index = hash & mask;; index = (index + 1) & mask) {
      if (slots_[index].key == key || slots_[index].key == kNoKey) return index;
    }
  }

  void grow() {
    std::vector<Slot> old(2 * slots_.size(), Slot{kNoKey, Value{}});
    old.swap(slots_);
    for (Slot& slot : old) {
      if (slot.key != kNoKey) slots_[index_of(slot.key)] = std::move(slot);
    }
  }

  std::vector<Slot> slots_;
  std::size_t size_ = 0;
};

}  // namespace megatron_ext
