#include "blend.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "blend_scan.h"
#include "checks.h"

namespace megatron_ext {

Blend::Blend(const std::vector<double>& weights) : num_datasets_(static_cast<std::int64_t>(weights.size())) {
  require_argument(!weights.empty() && weights.size() <= std::numeric_limits<std::int32_t>::max(),
                   "a blend is of 1 to 2^31 - 1 datasets, not ", weights.size());
  for (const double weight : weights) {
    require_argument(std::isfinite(weight) && weight > 0, "a weight of ", weight,
                     " is not positive and finite");
  }
  const std::size_t padded = (weights.size() + kScanBlock - 1) / kScanBlock * kScanBlock;
  weights_ = weights;
  weights_.resize(padded, 0.0);
  counts_.assign(weights.size(), 0.0);
  counts_.resize(padded, std::numeric_limits<double>::infinity());  // padding never lags behind
}

std::int64_t Blend::count(std::int64_t dataset) const {
  require_argument(dataset >= 0 && dataset < num_datasets_, "there is no dataset ", dataset);
  return static_cast<std::int64_t>(counts_[static_cast<std::size_t>(dataset)]);
}

void Blend::draw(std::int64_t count, std::int32_t* dataset_ids, std::int64_t* sample_ids) {
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t dataset = next();
    dataset_ids[i] = static_cast<std::int32_t>(dataset);
    sample_ids[i] = this->count(dataset) - 1;
  }
}

void Blend::seek(std::int64_t position) {
  require_argument(position >= 0, "there is no position ", position);
  if (position < position_) {
    std::fill_n(counts_.begin(), num_datasets_, 0.0);
    position_ = 0;
  }
  while (position_ < position) next();
}

std::int64_t Blend::next() {
  const double x = std::max(static_cast<double>(position_), 1.0);
  const std::size_t dataset = largest_error(weights_.data(), counts_.data(), weights_.size(), x);
  counts_[dataset] += 1.0;
  ++position_;
  return static_cast<std::int64_t>(dataset);
}

}  // namespace megatron_ext
