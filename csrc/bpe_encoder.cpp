#include "bpe_encoder.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "characters.h"

namespace megatron_ext {
namespace {

constexpr std::size_t kKeptCapacity = 1 << 20;  // bytes of a document's copy; a larger one is released
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

bool is_ascii(const std::uint8_t* eight_bytes) {
  std::uint64_t word;
  std::memcpy(&word, eight_bytes, sizeof word);
  return (word & 0x8080808080808080u) == 0;
}

}  // namespace

void BpeEncoder::encode(std::string_view text, std::vector<std::uint32_t>& ids) {
  if (text.empty()) return;  // no dummy prefix either
  load(text);
  const auto* start = text_.data();
  const auto* end = start + text_size_;
  for (const auto* position = start; position < end;) {
    const auto count = cut(position, end);
    encode_chunks(start, count, ids);
    if (count > 0) start = chunk_ends_[count - 1];
  }
  if (text_.capacity() > kKeptCapacity) std::vector<std::uint8_t>().swap(text_);
}

// Copies `text` behind the dummy prefix, and puts U+FFFD for each byte that is not part of a character.
void BpeEncoder::load(std::string_view text) {
  const auto* position = reinterpret_cast<const std::uint8_t*>(text.data());
  const auto* end = position + text.size();
  text_.clear();
  text_.reserve(1 + text.size() + LongMemo::kMaxBytes);
  if (model_->add_dummy_prefix()) text_.push_back(' ');
  const auto* valid = position;  // what is valid from here on has not been copied
  while (position < end) {
    if (end - position >= 8 && is_ascii(position)) {
      position += 8;
      continue;
    }
    const auto length = valid_utf8_length(position, end);
    if (length > 0) {
      position += length;
      continue;
    }
    text_.insert(text_.end(), valid, position);
    text_.insert(text_.end(), kReplacement.begin(), kReplacement.end());
    valid = ++position;
  }
  text_.insert(text_.end(), valid, end);
  text_size_ = text_.size();
  text_.resize(text_size_ + LongMemo::kMaxBytes);
}

// Finds where chunks end, from the character at `position` on, which moves ahead; stops at `end`, where the
// last chunk ends, or when there are about kBatch. Returns how many there are.
std::size_t BpeEncoder::cut(const std::uint8_t*& position, const std::uint8_t* end) {
  std::size_t count = 0;
  const auto* here = position;
  while (count + 8 < kBatch && here < end) {
    if (end - here > 8 && is_ascii(here) && here[8] < 0x80) {
      // Without a branch: chunks are short, and where they end is hard to predict.
      for (int i = 0; i < 8; ++i, ++here) {
        chunk_ends_[count] = here + 1;
        count += !model_->joinable_ascii(here[0], here[1]);
      }
      continue;
    }
    const char32_t left = next_character(here);
    chunk_ends_[count] = here;
    if (here == end) {
      ++count;
      break;
    }
    const auto* next = here;
    const char32_t right = next_character(next);
    count += left < 128 && right < 128
                 ? !model_->joinable_ascii(static_cast<std::uint8_t>(left), static_cast<std::uint8_t>(right))
                 : !model_->joinable(left, right);
  }
  position = here;
  return count;
}

// Encodes the chunks that `cut` found, the first from `start` on.
void BpeEncoder::encode_chunks(const std::uint8_t* start, std::size_t count,
                               std::vector<std::uint32_t>& ids) {
  prepare_lookups(start, count);
  for (std::size_t i = 0; i < count; ++i) {
    i = append_known(i, count, ids);
    if (i < count) encode_chunk(i > 0 ? chunk_ends_[i - 1] : start, chunk_ends_[i], ids);
  }
}

// All the memory that the chunks need is on its way before the first is looked up.
void BpeEncoder::prepare_lookups(const std::uint8_t* start, std::size_t count) {
  const auto* chunk = start;
  for (std::size_t i = 0; i < count; ++i) {
    const auto size = static_cast<std::size_t>(chunk_ends_[i] - chunk);
    Lookup& lookup = lookups_[i];
    if (size <= ShortMemo::kMaxBytes) {
      lookup.key = ShortMemo::key_of(chunk, size);
      lookup.home = short_memo_.home_of(lookup.key);
      short_memo_.prefetch(lookup.home);
    } else {
      lookup = Lookup{};
      lookup.key.size = ~std::uint32_t{0};  // which is not found
    }
    chunk = chunk_ends_[i];
  }
}

// Appends ids of the chunks from `first` on, as long as they are known. Returns the first that is not, or
// `count`.
std::size_t BpeEncoder::append_known(std::size_t first, std::size_t count,
                                     std::vector<std::uint32_t>& ids) const {
  const auto before = ids.size();
  ids.resize(before + ShortMemo::kIdsPerSlot * (count - first));  // at most, and cut down in the end
  auto* out = ids.data() + before;
  for (; first < count; ++first) {
    const auto* known = short_memo_.find(lookups_[first].key, lookups_[first].home);
    if (!known) break;
    std::memcpy(out, known->ids.data(), sizeof known->ids);
    out += known->num_ids;
  }
  ids.resize(static_cast<std::size_t>(out - ids.data()));
  return first;
}

// A chunk that is not in the memory of short ones.
void BpeEncoder::encode_chunk(const std::uint8_t* chunk, const std::uint8_t* end,
                              std::vector<std::uint32_t>& ids) {
  const auto size = static_cast<std::size_t>(end - chunk);
  if (size > LongMemo::kMaxBytes) return merger_.encode(chunk, end, ids);
  const auto key = LongMemo::key_of(chunk, size);
  if (const auto* known = long_memo_.find(key, long_memo_.home_of(key))) {
    ids.insert(ids.end(), known->ids.begin(), known->ids.begin() + known->num_ids);
    return;
  }
  const auto before = ids.size();
  merger_.encode(chunk, end, ids);
  const auto* added = ids.data() + before;
  const auto num_added = ids.size() - before;
  if (size <= ShortMemo::kMaxBytes && num_added <= ShortMemo::kIdsPerSlot) {
    short_memo_.add(ShortMemo::key_of(chunk, size), added, num_added);
  } else if (num_added <= LongMemo::kIdsPerSlot) {
    long_memo_.add(key, added, num_added);
  }
}

}  // namespace megatron_ext
