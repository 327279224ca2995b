// megatron-core's rule for mixing datasets, streamed: its whole state is one counter per dataset.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "blend_scan.h"

namespace megatron_ext {

// Draw i comes from the dataset that lags most behind its share: the largest weight × max(i, 1) - (times
// drawn), the first of equals. This is build_blending_indices, ties and rounding included, without its
// arrays, and with int32 ids where it has int16.
class Blend {
 public:
  // Weights are positive and finite. The instruction set (see blend_scan) changes the speed only.
  explicit Blend(const std::vector<double>& weights, const std::string& instruction_set = "");

  std::int64_t num_datasets() const { return num_datasets_; }
  std::int64_t position() const { return position_; }
  std::int64_t count(std::int64_t dataset) const;  // times drawn so far

  // The next `count` draws: dataset, and how often that dataset was drawn before.
  void draw(std::int64_t count, std::int32_t* dataset_ids, std::int64_t* sample_ids);

  // Goes to a position by making the draws before it, from where it is or else from the start.
  void seek(std::int64_t position);

  // Goes to a position at once, by the counts that another Blend of these weights had there.
  void restore(std::int64_t position, const std::vector<std::int64_t>& counts);

 private:
  std::size_t draw_block(std::int64_t limit);

  std::int64_t num_datasets_;
  std::int64_t position_ = 0;
  const BlendScan* scan_;
  // Padded to whole blocks of the scan. Counts are doubles because the rule's arithmetic is (exact below
  // 2^53).
  Doubles weights_;
  Doubles counts_;

  // How blocks of draws are cut, which has no part in what is drawn.
  std::int64_t block_steps_;
  double margin_;
  Candidates candidates_;
  std::vector<std::int32_t> drawn_;  // the last block's
};

}  // namespace megatron_ext
