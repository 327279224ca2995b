// Writes .bin and .idx, byte for byte as megatron-core's IndexedDatasetBuilder does with one sequence per
// document.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "indexed_format.h"

namespace megatron_ext {

class IndexedBuilder {
 public:
  // Writes to files that the caller opened, empty, and closes after finish(): names and atomicity are theirs.
  IndexedBuilder(int bin_descriptor, int idx_descriptor, TokenType type);

  // Appends documents of lengths[0], lengths[1], … tokens that lie one behind the other in `tokens`.
  void add_documents(const std::byte* tokens, std::int64_t num_tokens, const std::int64_t* lengths,
                     std::int64_t num_documents);

  // Writes the whole .idx. Nothing can be added afterwards.
  void finish();

  TokenType token_type() const { return type_; }
  std::int64_t num_documents() const { return static_cast<std::int64_t>(lengths_.size()); }
  std::int64_t num_tokens() const { return num_tokens_; }

 private:
  int bin_;
  int idx_;
  TokenType type_;
  bool finished_ = false;
  std::int64_t num_tokens_ = 0;
  std::vector<std::int32_t> lengths_;
};

}  // namespace megatron_ext
