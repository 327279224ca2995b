// The inner loop of the blend, apart so that versions for wider instructions can be chosen at run time.
#pragma once

#include <cstddef>

namespace megatron_ext {

constexpr std::size_t kScanBlock = 32;

// The smallest index of the largest weights[i] * x - counts[i]; size is a multiple of kScanBlock, nothing is
// NaN.
std::size_t largest_error(const double* weights, const double* counts, std::size_t size, double x);

}  // namespace megatron_ext
