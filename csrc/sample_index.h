// Where the training samples of one indexed dataset lie. A sample is seq_length + 1 tokens: inputs and,
// shifted by one, labels; so a sample starts with the last label of the one before it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "indexed_reader.h"

namespace megatron_ext {

// megatron-core's sample index: for samples 0 … num_samples (the end counts) over the sequences in the order
// of `sequence_order`, the pair (position in that order, token offset in that sequence) of the first token.
// `sequence_lengths` is indexed by sequence; throws when num_samples samples are more than there are tokens
// for.
std::vector<std::int32_t> build_sample_index(const std::int32_t* sequence_lengths, std::int64_t num_sequences,
                                             const std::int32_t* sequence_order, std::int64_t order_size,
                                             std::int64_t seq_length, std::int64_t num_samples);

struct TokenRange {
  std::int64_t first, count;
};

// Numbered samples of one dataset. Only their tokens are read, and nothing around them: the reader is told
// so.
class SampleSource {
 public:
  SampleSource(std::shared_ptr<const IndexedReader> reader, std::int64_t seq_length);
  virtual ~SampleSource() = default;

  // Appends the ranges of the reader's stream that make up a sample, in order: row_tokens() tokens in all, or
  // less in the last window of an epoch.
  virtual void locate(std::int64_t sample, std::vector<TokenRange>& ranges) const = 0;

  // Copies the tokens of a sample to `row`, which has room for row_tokens(), and zeros behind them. Returns
  // how many there are.
  std::int64_t fill(std::int64_t sample, std::byte* row) const;

  // Has the kernel read the tokens of a sample in the background, as far as memory does not hold them yet.
  void will_need(std::int64_t sample) const;

  const IndexedReader& reader() const { return *reader_; }
  std::int64_t seq_length() const { return seq_length_; }
  std::int64_t row_tokens() const { return seq_length_ + 1; }

 private:
  std::shared_ptr<const IndexedReader> reader_;
  std::int64_t seq_length_;
};

// Windows at stride seq_length over the stream of the sequences [first_sequence, end_sequence), for ever: an
// epoch holds every window once, in file order without a key, else in an order of its own that follows from
// the key. Every token but the very first is a label exactly once an epoch, because the last window may be
// short.
class WindowSamples final : public SampleSource {
 public:
  WindowSamples(std::shared_ptr<const IndexedReader> reader, std::int64_t first_sequence,
                std::int64_t end_sequence, std::int64_t seq_length, std::optional<std::uint64_t> key);

  void locate(std::int64_t sample, std::vector<TokenRange>& ranges) const override;
  std::int64_t num_tokens() const { return num_tokens_; }
  std::int64_t samples_per_epoch() const { return samples_per_epoch_; }

 private:
  std::int64_t first_token_;
  std::int64_t num_tokens_;
  std::int64_t samples_per_epoch_;
  std::optional<std::uint64_t> key_;
};

// The samples of megatron-core's GPTDataset, through its three arrays.
class MegatronSamples final : public SampleSource {
 public:
  MegatronSamples(std::shared_ptr<const IndexedReader> reader, std::vector<std::int32_t> sequence_order,
                  std::vector<std::int32_t> sample_index, std::vector<std::uint32_t> shuffle_index,
                  std::int64_t seq_length);

  void locate(std::int64_t sample, std::vector<TokenRange>& ranges) const override;
  std::int64_t num_samples() const { return static_cast<std::int64_t>(shuffle_index_.size()); }

 private:
  std::vector<std::int32_t> sequence_order_;
  std::vector<std::int32_t> sample_index_;
  std::vector<std::uint32_t> shuffle_index_;
};

// Fills batches from several sources of one seq_length and one token type.
class SampleGather {
 public:
  explicit SampleGather(std::vector<std::shared_ptr<const SampleSource>> sources);

  // Announces samples that gather() will want soon.
  void prefetch(const std::int32_t* source_ids, const std::int64_t* sample_ids, std::int64_t count) const;

  // Row i becomes sample sample_ids[i] of source source_ids[i], or zeros where that is -1; valid[i] is its
  // number of tokens. `rows` holds count × row_tokens() tokens.
  void gather(const std::int32_t* source_ids, const std::int64_t* sample_ids, std::int64_t count,
              std::byte* rows, std::int32_t* valid) const;

  TokenType token_type() const { return sources_.front()->reader().token_type(); }
  std::int64_t row_tokens() const { return sources_.front()->row_tokens(); }

 private:
  const SampleSource* source(std::int64_t id) const;  // null for -1

  std::vector<std::shared_ptr<const SampleSource>> sources_;
};

}  // namespace megatron_ext
