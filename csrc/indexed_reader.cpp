#include "indexed_reader.h"

#include <cstring>
#include <stdexcept>

#include "checks.h"

namespace megatron_ext {
namespace {

template <typename T>
T load_at(const std::byte* array, std::int64_t index) {
  return load<T>(array + static_cast<std::size_t>(index) * sizeof(T));
}

}  // namespace

IndexedReader::IndexedReader(const std::string& prefix) : idx_(prefix + ".idx"), bin_(prefix + ".bin") {
  read_header();
  if (idx_.size() <= kCheckedAtOpenBytes) {
    verify();
  } else {
    check_ends();
  }
}

void IndexedReader::read_header() {
  const std::string& path = idx_.path();
  require_data(idx_.size() >= kHeaderBytes, path, ": has ", idx_.size(), " bytes, less than the header's ",
               kHeaderBytes);
  const std::byte* header = idx_.data();
  require_data(
      std::memcmp(header, kMagic.data(), kMagic.size()) == 0, path,
      ": does not start as an .idx file does; was it made by a preprocess tool of the Megatron family?");
  const auto version = load<std::uint64_t>(header + kVersionOffset);
  require_data(version == kVersion, path, ": format version ", version, " is unknown; only 1 is");
  const auto code = load<std::uint8_t>(header + kTypeOffset);
  type_ = static_cast<TokenType>(code);
  require_data(item_size(type_) > 0, path, ": dtype code ", static_cast<int>(code),
               " is not an integer type (1 u8, 2 i8, 3 i16, 4 i32, 5 i64, 8 u16)");

  // Divisions, because a product of hostile counts may overflow.
  const auto sequences = load<std::uint64_t>(header + kSequencesOffset);
  const auto document_indices = load<std::uint64_t>(header + kDocumentsOffset);
  const std::uint64_t body = idx_.size() - kHeaderBytes;
  const bool fits = sequences <= body / kBytesPerSequence &&
                    document_indices <= (body - sequences * kBytesPerSequence) / sizeof(std::int64_t);
  require_data(fits, path, ": is cut short: its ", idx_.size(), " bytes cannot hold the ", sequences,
               " sequences and ", document_indices, " document indices it announces");
  const std::uint64_t expected = sequences * kBytesPerSequence + document_indices * sizeof(std::int64_t);
  require_data(
      body == expected, path, ": holds ", body - expected,
      " bytes more than it announces; multimodal datasets (with a mode per sequence) are not supported");
  num_sequences_ = static_cast<std::int64_t>(sequences);
  num_document_indices_ = static_cast<std::int64_t>(document_indices);
  num_tokens_ = static_cast<std::int64_t>(bin_.size() / token_bytes());
  require_data(num_document_indices_ >= 1, path,
               ": has no document index; the last one must be the number of sequences");
}

void IndexedReader::verify() const {
  // The first sequence starts at 0, each ends where the next one starts, and the last ends with the .bin: so
  // they fill it without a gap, and none of them reaches out of it.
  for (std::int64_t i = 0; i < num_sequences_; ++i) check_sequence(i);
  check_document_order();
  check_ends();
}

void IndexedReader::check_ends() const {
  if (num_sequences_ == 0) {
    require_data(bin_.size() == 0, bin_.path(), ": has ", bin_.size(), " bytes, but ", idx_.path(),
                 " describes no sequence: the two files are not a pair");
  } else {
    check_sequence(0);
    check_sequence(num_sequences_ - 1);
  }
  const auto first = load_at<std::int64_t>(document_indices(), 0);
  const auto last = load_at<std::int64_t>(document_indices(), num_document_indices_ - 1);
  require_data(first == 0, idx_.path(), ": the first document starts at sequence ", first, " instead of 0");
  require_data(last == num_sequences_, idx_.path(), ": the last document index is ", last, " instead of the ",
               num_sequences_, " sequences");
}

void IndexedReader::check_sequence(std::int64_t sequence) const {
  const auto bin_bytes = static_cast<std::int64_t>(bin_.size());
  const auto length = load_at<std::int32_t>(lengths(), sequence);
  const auto offset = load_at<std::int64_t>(offsets(), sequence);
  require_data(length >= 0, idx_.path(), ": sequence ", sequence, " has a negative length, ", length);
  require_data(sequence > 0 || offset == 0, idx_.path(), ": sequence 0 starts at byte ", offset,
               " instead of 0");
  // No sum overflows: the offset is inside of the .bin, and a length has 31 bits.
  const auto bytes = static_cast<std::int64_t>(token_bytes());
  const std::int64_t size = length * bytes;
  require_data(offset >= 0 && offset <= bin_bytes, idx_.path(), ": sequence ", sequence, " starts at byte ",
               offset, ", outside of ", bin_.path(), " (", bin_bytes,
               " bytes): one of the two files is cut short or of another pair");
  require_data(size <= bin_bytes - offset, idx_.path(), ": sequence ", sequence, " ends behind the end of ",
               bin_.path(), " (", bin_bytes, " bytes): one of the two files is cut short or of another pair");
  require_data(offset % bytes == 0, idx_.path(), ": sequence ", sequence, " starts at byte ", offset,
               ", inside of a token of ", bytes, " bytes");
  if (sequence == num_sequences_ - 1) {
    require_data(offset + size == bin_bytes, bin_.path(), ": has ", bin_bytes, " bytes, but ", idx_.path(),
                 " describes ", offset + size, ": the two files are not a pair, or one is cut short");
    return;
  }
  const auto next = load_at<std::int64_t>(offsets(), sequence + 1);
  require_data(offset + size == next, idx_.path(), ": sequence ", sequence, " ends at byte ", offset + size,
               ", but sequence ", sequence + 1, " starts at byte ", next,
               ": sequences must lie one behind the other");
}

void IndexedReader::check_document_order() const {
  std::int64_t previous = 0;
  for (std::int64_t i = 0; i < num_document_indices_; ++i) {
    const auto start = load_at<std::int64_t>(document_indices(), i);
    require_data(start >= previous, idx_.path(), ": document index ", i, " is ", start,
                 ", less than the one before it, ", previous);
    previous = start;
  }
}

const std::byte* IndexedReader::offsets() const {
  return lengths() + static_cast<std::size_t>(num_sequences_) * sizeof(std::int32_t);
}

const std::byte* IndexedReader::document_indices() const {
  return offsets() + static_cast<std::size_t>(num_sequences_) * sizeof(std::int64_t);
}

std::int64_t IndexedReader::sequence_length(std::int64_t sequence) const {
  if (sequence < 0 || sequence >= num_sequences_) {
    throw std::out_of_range(concat(path(), ": no sequence ", sequence, " among ", num_sequences_));
  }
  check_sequence(sequence);
  return load_at<std::int32_t>(lengths(), sequence);
}

std::int64_t IndexedReader::sequence_start(std::int64_t sequence) const {
  if (sequence == num_sequences_) return num_tokens_;
  if (sequence < 0 || sequence > num_sequences_) {
    throw std::out_of_range(concat(path(), ": no sequence ", sequence, " among ", num_sequences_));
  }
  check_sequence(sequence);
  return load_at<std::int64_t>(offsets(), sequence) / static_cast<std::int64_t>(token_bytes());
}

const std::byte* IndexedReader::tokens(std::int64_t first, std::int64_t count) const {
  if (first < 0 || count < 0 || first > num_tokens_ || count > num_tokens_ - first) {
    throw std::out_of_range(
        concat(path(), ": no ", count, " tokens from ", first, " on among ", num_tokens_));
  }
  return bin_.data() + static_cast<std::size_t>(first) * token_bytes();
}

void IndexedReader::will_need(std::int64_t first, std::int64_t count) const {
  const std::byte* begin = tokens(first, count);
  bin_.will_need(static_cast<std::size_t>(begin - bin_.data()),
                 static_cast<std::size_t>(count) * token_bytes());
}

void IndexedReader::copy_sequence_lengths(std::int32_t* out) const {
  std::memcpy(out, lengths(), static_cast<std::size_t>(num_sequences_) * sizeof(std::int32_t));
  std::int64_t total = 0;  // cannot overflow: the .idx would have to hold 2^32 lengths first
  for (std::int64_t i = 0; i < num_sequences_; ++i) {
    require_data(out[i] >= 0, idx_.path(), ": sequence ", i, " has a negative length, ", out[i]);
    total += out[i];
  }
  require_data(total == num_tokens_, idx_.path(), ": its sequences have ", total, " tokens, but ",
               bin_.path(), " holds ", num_tokens_, ": the two files are not a pair, or one is damaged");
}

void IndexedReader::copy_document_indices(std::int64_t* out) const {
  check_document_order();
  std::memcpy(out, document_indices(),
              static_cast<std::size_t>(num_document_indices_) * sizeof(std::int64_t));
}

}  // namespace megatron_ext
