// megatron-core's rule for mixing datasets, streamed: its whole state is one counter per dataset.
#pragma once

#include <cstdint>
#include <vector>

namespace megatron_ext {

// Draw i comes from the dataset that lags most behind its share: the largest weight × max(i, 1) - (times
// drawn), the first of equals. This is build_blending_indices, ties and rounding included, without its
// arrays, and with int32 ids where it has int16.
class Blend {
 public:
  explicit Blend(const std::vector<double>& weights);  // positive, finite

  std::int64_t num_datasets() const { return num_datasets_; }
  std::int64_t position() const { return position_; }
  std::int64_t count(std::int64_t dataset) const;  // times drawn so far

  // The next `count` draws: dataset, and how often that dataset was drawn before.
  void draw(std::int64_t count, std::int32_t* dataset_ids, std::int64_t* sample_ids);

  // Goes to a position by making the draws before it, from where it is or else from the start.
  void seek(std::int64_t position);

 private:
  std::int64_t next();

  std::int64_t num_datasets_;
  std::int64_t position_ = 0;
  // Padded to whole blocks of the scan. Counts are doubles because the rule's arithmetic is (exact below
  // 2^53).
  std::vector<double> weights_;
  std::vector<double> counts_;
};

}  // namespace megatron_ext
