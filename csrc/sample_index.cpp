#include "sample_index.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <utility>

#include "checks.h"
#include "shuffle.h"

namespace megatron_ext {
namespace {

constexpr std::int64_t kMaxInt32 = std::numeric_limits<std::int32_t>::max();

}  // namespace

std::vector<std::int32_t> build_sample_index(const std::int32_t* sequence_lengths, std::int64_t num_sequences,
                                             const std::int32_t* sequence_order, std::int64_t order_size,
                                             std::int64_t seq_length, std::int64_t num_samples) {
  require_argument(seq_length > 0 && seq_length < kMaxInt32 && num_samples >= 0, "a seq_length of ",
                   seq_length, " or a number of ", num_samples, " samples is out of range");
  require_argument(order_size <= kMaxInt32, "an order of ", order_size, " sequences does not fit int32");
  std::vector<std::int32_t> index;
  index.reserve(2 * (static_cast<std::size_t>(num_samples) + 1));
  // The first sample starts at the first sequence even when that one is empty; megatron-core has it so.
  index.insert(index.end(), {0, 0});
  std::int64_t next = seq_length;  // where the next sample starts in the stream
  std::int64_t start = 0;          // where the current sequence does
  std::int64_t remaining = num_samples;
  for (std::int64_t position = 0; position < order_size && remaining > 0; ++position) {
    const std::int32_t sequence = sequence_order[position];
    require_argument(sequence >= 0 && sequence < num_sequences, "no sequence ", sequence, " among ",
                     num_sequences);
    require_argument(sequence_lengths[sequence] >= 0, "sequence ", sequence, " has a negative length, ",
                     sequence_lengths[sequence]);
    const std::int64_t end = start + sequence_lengths[sequence];
    for (; next < end && remaining > 0; next += seq_length, --remaining) {
      index.insert(index.end(),
                   {static_cast<std::int32_t>(position), static_cast<std::int32_t>(next - start)});
    }
    start = end;
  }
  require_argument(remaining == 0, "there are not enough tokens for ", num_samples, " samples of ",
                   seq_length, " tokens: ", remaining, " are missing");
  return index;
}

SampleSource::SampleSource(std::shared_ptr<const IndexedReader> reader, std::int64_t seq_length)
    : reader_(std::move(reader)), seq_length_(seq_length) {
  require_argument(seq_length > 0 && seq_length < kMaxInt32, "a seq_length of ", seq_length,
                   " is out of range");
  reader_->advise_random();
}

std::int64_t SampleSource::fill(std::int64_t sample, std::byte* row) const {
  std::vector<TokenRange> ranges;
  locate(sample, ranges);
  std::int64_t filled = 0;
  for (const auto& range : ranges) {
    const std::size_t bytes = static_cast<std::size_t>(range.count) * reader_->token_bytes();
    std::memcpy(row, reader_->tokens(range.first, range.count), bytes);
    row += bytes;
    filled += range.count;
  }
  std::memset(row, 0, static_cast<std::size_t>(row_tokens() - filled) * reader_->token_bytes());
  return filled;
}

void SampleSource::will_need(std::int64_t sample) const {
  std::vector<TokenRange> ranges;
  locate(sample, ranges);
  for (const auto& range : ranges) reader_->will_need(range.first, range.count);
}

WindowSamples::WindowSamples(std::shared_ptr<const IndexedReader> reader, std::int64_t first_sequence,
                             std::int64_t end_sequence, std::int64_t seq_length,
                             std::optional<std::uint64_t> key)
    : SampleSource(std::move(reader), seq_length), key_(key) {
  first_token_ = this->reader().sequence_start(first_sequence);
  num_tokens_ = this->reader().sequence_start(end_sequence) - first_token_;
  require_argument(num_tokens_ >= 0, "sequences ", first_sequence, " to ", end_sequence, " are not a range");
  // ceil((tokens - 1) / seq_length): each token but the first is a label of one window.
  samples_per_epoch_ = std::max<std::int64_t>(1, (num_tokens_ + seq_length - 2) / seq_length);
}

void WindowSamples::locate(std::int64_t sample, std::vector<TokenRange>& ranges) const {
  require_argument(sample >= 0, "there is no sample ", sample);
  std::int64_t window = sample % samples_per_epoch_;
  if (key_) {
    const auto epoch = static_cast<std::uint64_t>(sample / samples_per_epoch_);
    const Permutation order(static_cast<std::uint64_t>(samples_per_epoch_), combine_keys(*key_, epoch));
    window = static_cast<std::int64_t>(order(static_cast<std::uint64_t>(window)));
  }
  const std::int64_t start = window * seq_length();
  const std::int64_t count = std::min(row_tokens(), num_tokens_ - start);
  if (count > 0) ranges.push_back({first_token_ + start, count});
}

MegatronSamples::MegatronSamples(std::shared_ptr<const IndexedReader> reader,
                                 std::vector<std::int32_t> sequence_order,
                                 std::vector<std::int32_t> sample_index,
                                 std::vector<std::uint32_t> shuffle_index, std::int64_t seq_length)
    : SampleSource(std::move(reader), seq_length),
      sequence_order_(std::move(sequence_order)),
      sample_index_(std::move(sample_index)),
      shuffle_index_(std::move(shuffle_index)) {
  const std::size_t samples = shuffle_index_.size();
  require_argument(sample_index_.size() == 2 * (samples + 1), "the sample index has ",
                   sample_index_.size() / 2, " rows, not one more than the ", samples,
                   " samples of the shuffle index");
  for (const auto sample : shuffle_index_) {
    require_argument(sample < samples, "the shuffle index names sample ", sample, " of ", samples);
  }
}

void MegatronSamples::locate(std::int64_t sample, std::vector<TokenRange>& ranges) const {
  require_data(sample >= 0 && sample < num_samples(), reader().path(), ": sample ", sample,
               " is asked for, but ", num_samples(),
               " were planned: the run goes on for longer than its order was built for");
  const std::size_t entry = 2 * static_cast<std::size_t>(shuffle_index_[static_cast<std::size_t>(sample)]);
  std::int64_t offset = sample_index_[entry + 1];
  std::int64_t missing = row_tokens();
  for (auto position = static_cast<std::size_t>(sample_index_[entry]); missing > 0; ++position) {
    const std::int64_t sequence = sequence_order_.at(position);
    const std::int64_t count = std::min(missing, reader().sequence_length(sequence) - offset);
    if (count < 0) {
      throw std::out_of_range(concat(reader().path(), ": no token ", offset, " in sequence ", sequence,
                                     ", where a sample starts"));
    }
    if (count > 0) ranges.push_back({reader().sequence_start(sequence) + offset, count});
    missing -= count;
    offset = 0;
  }
}

SampleGather::SampleGather(std::vector<std::shared_ptr<const SampleSource>> sources)
    : sources_(std::move(sources)) {
  require_argument(!sources_.empty(), "there is nothing to gather from");
  for (const auto& source : sources_) {
    require_argument(source->row_tokens() == row_tokens(), "sources of one batch share one seq_length");
    require_data(source->reader().token_type() == token_type(), source->reader().path(),
                 ": its tokens are stored with another dtype than those of ",
                 sources_.front()->reader().path());
  }
}

const SampleSource* SampleGather::source(std::int64_t id) const {
  require_argument(id >= -1 && id < static_cast<std::int64_t>(sources_.size()), "there is no source ", id);
  return id < 0 ? nullptr : sources_[static_cast<std::size_t>(id)].get();
}

void SampleGather::prefetch(const std::int32_t* source_ids, const std::int64_t* sample_ids,
                            std::int64_t count) const {
  for (std::int64_t i = 0; i < count; ++i) {
    const SampleSource* from = source(source_ids[i]);
    if (from != nullptr) from->will_need(sample_ids[i]);
  }
}

void SampleGather::gather(const std::int32_t* source_ids, const std::int64_t* sample_ids, std::int64_t count,
                          std::byte* rows, std::int32_t* valid) const {
  const std::size_t row_bytes = static_cast<std::size_t>(row_tokens()) * item_size(token_type());
  for (std::int64_t i = 0; i < count; ++i, rows += row_bytes) {
    const SampleSource* from = source(source_ids[i]);
    if (from == nullptr) {
      std::memset(rows, 0, row_bytes);
      valid[i] = 0;
    } else {
      valid[i] = static_cast<std::int32_t>(from->fill(sample_ids[i], rows));
    }
  }
}

}  // namespace megatron_ext
