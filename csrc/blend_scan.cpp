#include "blend_scan.h"

#include <algorithm>
#include <limits>

namespace megatron_ext {
namespace {

constexpr std::size_t kLanes = 8;

// The maximum of one block. Lanes are kept apart because a compiler may not reorder one running maximum of
// doubles, but vectorises eight independent ones.
double largest_error_in_block(const double* weights, const double* counts, double x) {
  double lanes[kLanes];
  for (std::size_t lane = 0; lane < kLanes; ++lane) lanes[lane] = weights[lane] * x - counts[lane];
  for (std::size_t i = kLanes; i < kScanBlock; i += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      const double error = weights[i + lane] * x - counts[i + lane];
      lanes[lane] = error > lanes[lane] ? error : lanes[lane];
    }
  }
  return *std::max_element(lanes, lanes + kLanes);
}

}  // namespace

std::size_t largest_error(const double* weights, const double* counts, std::size_t size, double x) {
  // Only maxima are tracked, and the index is looked up at the end in the one block that holds it.
  double largest = -std::numeric_limits<double>::infinity();
  std::size_t block = 0;
  for (std::size_t i = 0; i < size; i += kScanBlock) {
    const double error = largest_error_in_block(weights + i, counts + i, x);
    if (error > largest) {  // not >=: the first of equals wins
      largest = error;
      block = i;
    }
  }
  std::size_t i = block;
  while (weights[i] * x - counts[i] != largest) ++i;
  return i;
}

}  // namespace megatron_ext
