#include "indexed_builder.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <system_error>

#include "checks.h"

namespace megatron_ext {
namespace {

// write(2) may take less than it was given (2 GiB at most on Linux).
void write_all(int descriptor, const void* data, std::size_t size) {
  auto* next = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = ::write(descriptor, next, size);
    if (written < 0) {
      if (errno == EINTR) continue;
      throw std::system_error(errno, std::generic_category(), "writing an indexed dataset");
    }
    next += written;
    size -= static_cast<std::size_t>(written);
  }
}

template <typename T>
void write_values(int descriptor, const std::vector<T>& values) {
  write_all(descriptor, values.data(), values.size() * sizeof(T));
}

// Writes the values f(0), f(1), … f(count - 1) without ever holding all of them.
template <typename F>
void write_generated(int descriptor, std::int64_t count, F f) {
  constexpr std::int64_t kChunk = 1 << 16;
  std::vector<std::int64_t> chunk;
  for (std::int64_t start = 0; start < count; start += kChunk) {
    chunk.clear();
    for (std::int64_t i = start; i < std::min(start + kChunk, count); ++i) chunk.push_back(f(i));
    write_values(descriptor, chunk);
  }
}

}  // namespace

IndexedBuilder::IndexedBuilder(int bin_descriptor, int idx_descriptor, TokenType type)
    : bin_(bin_descriptor), idx_(idx_descriptor), type_(type) {
  require_argument(item_size(type) > 0, "a token cannot be stored as dtype code ", static_cast<int>(type));
}

void IndexedBuilder::add_documents(const std::byte* tokens, std::int64_t num_tokens,
                                   const std::int64_t* lengths, std::int64_t num_documents) {
  require_argument(!finished_, "the dataset is already finished");
  std::int64_t remaining = num_tokens;
  for (std::int64_t i = 0; i < num_documents; ++i) {
    require_argument(lengths[i] >= 0 && lengths[i] <= std::numeric_limits<std::int32_t>::max(), "document ",
                     i, " has a length of ", lengths[i], ": the format holds 0 to 2^31 - 1");
    require_argument(lengths[i] <= remaining, "the lengths add up to more than the ", num_tokens,
                     " tokens given");
    remaining -= lengths[i];
  }
  require_argument(remaining == 0, "the lengths add up to ", num_tokens - remaining, ", but ", num_tokens,
                   " tokens were given");
  write_all(bin_, tokens, static_cast<std::size_t>(num_tokens) * item_size(type_));
  lengths_.insert(lengths_.end(), lengths, lengths + num_documents);
  num_tokens_ += num_tokens;
}

void IndexedBuilder::finish() {
  require_argument(!finished_, "the dataset is already finished");
  finished_ = true;
  const auto sequences = num_documents();
  const std::uint64_t counts[] = {static_cast<std::uint64_t>(sequences),
                                  static_cast<std::uint64_t>(sequences) + 1};
  write_all(idx_, kMagic.data(), kMagic.size());
  write_all(idx_, &kVersion, sizeof(kVersion));
  write_all(idx_, &type_, sizeof(type_));
  write_all(idx_, counts, sizeof(counts));
  write_values(idx_, lengths_);
  std::int64_t offset = 0;
  write_generated(idx_, sequences, [&](std::int64_t i) {
    const std::int64_t start = offset;
    offset += lengths_[static_cast<std::size_t>(i)] * static_cast<std::int64_t>(item_size(type_));
    return start;
  });
  write_generated(idx_, sequences + 1, [](std::int64_t i) { return i; });
}

}  // namespace megatron_ext
