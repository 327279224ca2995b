// Reads .bin and .idx through memory maps, and trusts nothing that they claim.
//
// Opening is quick whatever the size: an .idx of a large corpus has gigabytes. It checks the header, both
// sizes, and the first and last entry of each array. What lies between is checked when it is used, each
// sequence against its neighbour and the .bin, so no read leaves the maps. verify() checks everything; it
// runs at open for a small .idx, where it costs no more than reading the file does.
//
// One thing no check can prevent: a file that another program cuts short while it is mapped ends the process
// (SIGBUS). Our own tools replace files whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "indexed_format.h"
#include "mapped_file.h"

namespace megatron_ext {

// Sequences lie in the .bin one behind the other, in order and without gaps, as every Megatron writer has
// it. The file is therefore one stream of tokens, in which the stored byte offsets are the cumulative
// lengths. A file that is otherwise is refused by verify() and by access to a sequence beside a gap; windows
// over the whole stream need no entry between the ends, and read the .bin as it lies.
class IndexedReader {
 public:
  explicit IndexedReader(const std::string& prefix);

  // Throws DataError unless every length, offset and document index is right.
  void verify() const;

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

  // Hints: tokens will be read in any order; or the same tokens as above, soon.
  void advise_random() const { bin_.advise_random(); }
  void will_need(std::int64_t first, std::int64_t count) const;

  void copy_sequence_lengths(std::int32_t* out) const;  // num_sequences() values, not negative
  void copy_document_indices(std::int64_t* out) const;  // num_documents() + 1 values, in order

 private:
  // About as much as the kernel reads ahead when the header is touched: 6,500 sequences.
  static constexpr std::size_t kCheckedAtOpenBytes = 128 * 1024;

  void read_header();
  void check_ends() const;
  void check_sequence(std::int64_t sequence) const;  // which must exist
  void check_document_order() const;
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
