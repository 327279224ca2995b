// Reads .bin and .idx through memory maps. Everything the files claim is checked when they are opened, so
// that no later read can leave the maps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "indexed_format.h"
#include "mapped_file.h"

namespace megatron_ext {

// Sequences lie in the .bin one behind the other, in order and without gaps (checked). The file is therefore
// one stream of tokens, in which the stored byte offsets are the cumulative lengths.
class IndexedReader {
 public:
  explicit IndexedReader(const std::string& prefix);

  TokenType token_type() const { return type_; }
  std::size_t token_bytes() const { return item_size(type_); }
  std::int64_t num_sequences() const { return num_sequences_; }
  std::int64_t num_documents() const { return num_document_indices_ - 1; }
  std::int64_t num_tokens() const { return num_tokens_; }
  const std::string& path() const { return bin_.path(); }

  // Tokens of one sequence.
  std::int64_t sequence_length(std::int64_t sequence) const;

  // Where a sequence starts in the stream; for num_sequences(), where the stream ends.
  std::int64_t sequence_start(std::int64_t sequence) const;

  // The `count` tokens of the stream from `first` on, inside the map.
  const std::byte* tokens(std::int64_t first, std::int64_t count) const;

  void copy_sequence_lengths(std::int32_t* out) const;  // num_sequences() values
  void copy_document_indices(std::int64_t* out) const;  // num_documents() + 1 values

 private:
  void read_header();
  void check_sequences();
  void check_documents() const;
  const std::byte* lengths() const { return idx_.data() + kHeaderBytes; }
  const std::byte* offsets() const;
  const std::byte* document_indices() const;

  MappedFile idx_;
  MappedFile bin_;
  TokenType type_{};
  std::int64_t num_sequences_ = 0;
  std::int64_t num_document_indices_ = 0;
  std::int64_t num_tokens_ = 0;
};

}  // namespace megatron_ext
