#include "blend.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "checks.h"

namespace megatron_ext {
namespace {

// A block costs two passes over all datasets and each of its draws one over the candidates, which are about
// as many as the draws: best is a number of draws near the root of the number of datasets (measured).
constexpr double kStepsPerRoot = 2.0;
// So few datasets are scanned in whole for each draw as fast as candidates are chosen among them.
constexpr std::int64_t kNeverPruned = 32;
constexpr std::int64_t kUnprunedSteps = 1024;
// The margin settles where one block in five ends early: wider means more candidates, narrower shorter
// blocks.
constexpr double kMarginShrinks = 0.9, kMarginGrows = 1.5;
constexpr std::int64_t kLargestCount = std::int64_t{1} << 53;  // of which a double holds every one

}  // namespace

Blend::Blend(const std::vector<double>& weights, const std::string& instruction_set)
    : num_datasets_(static_cast<std::int64_t>(weights.size())),
      scan_(&blend_scan(instruction_set)),
      weights_(weights.begin(), weights.end()),
      counts_(weights.size(), 0.0),
      block_steps_(static_cast<std::int64_t>(kStepsPerRoot * std::sqrt(static_cast<double>(weights.size())))),
      margin_(1.0 / static_cast<double>(std::max<std::size_t>(weights.size(), 1))),
      candidates_(padded(weights.size())) {
  require_argument(!weights.empty() && weights.size() <= std::numeric_limits<std::int32_t>::max(),
                   "a blend is of 1 to 2^31 - 1 datasets, not ", weights.size());
  for (const double weight : weights) {
    require_argument(std::isfinite(weight) && weight > 0, "a weight of ", weight,
                     " is not positive and finite");
  }
  weights_.resize(padded(weights.size()), 0.0);
  counts_.resize(padded(weights.size()),
                 std::numeric_limits<double>::infinity());  // padding never lags behind
  if (num_datasets_ <= kNeverPruned) block_steps_ = kUnprunedSteps;
  drawn_.resize(static_cast<std::size_t>(block_steps_));
}

std::int64_t Blend::count(std::int64_t dataset) const {
  require_argument(dataset >= 0 && dataset < num_datasets_, "there is no dataset ", dataset);
  return static_cast<std::int64_t>(counts_[static_cast<std::size_t>(dataset)]);
}

void Blend::draw(std::int64_t count, std::int32_t* dataset_ids, std::int64_t* sample_ids) {
  while (count > 0) {
    const std::size_t drawn = draw_block(count);
    for (std::size_t i = 0; i < drawn; ++i) {
      double& times = counts_[static_cast<std::size_t>(drawn_[i])];
      *dataset_ids++ = drawn_[i];
      *sample_ids++ = static_cast<std::int64_t>(times);
      times += 1.0;
    }
    count -= static_cast<std::int64_t>(drawn);
  }
}

void Blend::seek(std::int64_t position) {
  require_argument(position >= 0, "there is no position ", position);
  if (position < position_) {
    std::fill_n(counts_.begin(), num_datasets_, 0.0);
    position_ = 0;
  }
  while (position_ < position) {
    const std::size_t drawn = draw_block(position - position_);
    for (std::size_t i = 0; i < drawn; ++i) counts_[static_cast<std::size_t>(drawn_[i])] += 1.0;
  }
}

void Blend::restore(std::int64_t position, const std::vector<std::int64_t>& counts) {
  require_argument(position >= 0 && position <= kLargestCount, "there is no position ", position);
  require_argument(counts.size() == static_cast<std::size_t>(num_datasets_), "the counts are of ",
                   counts.size(), " datasets, the blend is of ", num_datasets_);
  std::int64_t missing = position;  // never below 0, so that no sum overflows
  for (const std::int64_t count : counts) {
    require_argument(count >= 0 && count <= missing, "the counts do not add up to the position ", position);
    missing -= count;
  }
  require_argument(missing == 0, "the counts do not add up to the position ", position);
  std::copy(counts.begin(), counts.end(), counts_.begin());
  position_ = position;
}

// Makes at most `limit` draws, at least one: moves on the position and leaves the datasets in drawn_, for the
// caller to count.
//
// Only datasets whose error can reach a floor before the block ends are looked at. Errors of datasets that
// are not drawn never fall from one draw to the next (rounding keeps the order of products and differences),
// so that the rest stays below the floor, and the largest error among the candidates is the largest of all as
// long as it is not below the floor. There the block ends early. The floor starts a margin under the largest
// error, hence the first draw never fails.
std::size_t Blend::draw_block(std::int64_t limit) {
  const std::int64_t steps = std::min(limit, block_steps_);
  double floor = -std::numeric_limits<double>::infinity();
  if (num_datasets_ > kNeverPruned) {
    floor = scan_->largest(weights_.data(), counts_.data(), weights_.size(), blend_time(position_)) - margin_;
  }
  scan_->select(weights_.data(), counts_.data(), weights_.size(), blend_time(position_ + steps - 1), floor,
                candidates_);
  const std::size_t drawn =
      scan_->run(candidates_, position_, static_cast<std::size_t>(steps), floor, drawn_.data());
  for (std::size_t i = 0; i < drawn; ++i) {
    drawn_[i] = candidates_.ids[static_cast<std::size_t>(drawn_[i])];
  }
  const bool complete = drawn == static_cast<std::size_t>(steps);
  margin_ = complete ? margin_ * kMarginShrinks : std::min(margin_ * kMarginGrows, 1.0);
  position_ += static_cast<std::int64_t>(drawn);
  return drawn;
}

}  // namespace megatron_ext
