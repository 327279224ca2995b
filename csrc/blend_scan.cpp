#include "blend_scan.h"

#include <algorithm>
#include <limits>

#include "checks.h"

namespace megatron_ext {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr std::size_t kLanes = 8;

// The maximum of one block. Lanes are kept apart because a compiler may not reorder one running maximum of
// doubles, but vectorises eight independent ones.
double largest_in_block(const double* weights, const double* counts, double x) {
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

double largest(const double* weights, const double* counts, std::size_t size, double x) {
  double result = -kInfinity;
  for (std::size_t i = 0; i < size; i += kScanBlock) {
    result = std::max(result, largest_in_block(weights + i, counts + i, x));
  }
  return result;
}

void select(const double* weights, const double* counts, std::size_t size, double x, double floor,
            Candidates& candidates) {
  std::size_t found = 0;
  for (std::size_t i = 0; i < size; ++i) {
    // Written always and kept or not: cheaper than a branch that cannot be foretold.
    candidates.weights[found] = weights[i];
    candidates.counts[found] = counts[i];
    candidates.ids[found] = static_cast<std::int32_t>(i);
    found += weights[i] * x - counts[i] >= floor ? 1 : 0;
  }
  candidates.size = found;
  candidates.pad();
}

std::size_t run(Candidates& candidates, std::int64_t position, std::size_t steps, double floor,
                std::int32_t* drawn) {
  const double* weights = candidates.weights.data();
  double* counts = candidates.counts.data();
  for (std::size_t step = 0; step < steps; ++step) {
    const double x = blend_time(position + static_cast<std::int64_t>(step));
    // Only maxima are tracked, and the index is looked up at the end in the one block that holds it.
    double error = -kInfinity;
    std::size_t at = 0;
    for (std::size_t i = 0; i < candidates.size; i += kScanBlock) {
      const double here = largest_in_block(weights + i, counts + i, x);
      if (here > error) {  // not >=: the first of equals wins
        error = here;
        at = i;
      }
    }
    if (error < floor) return step;
    while (weights[at] * x - counts[at] != error) ++at;
    counts[at] += 1.0;
    drawn[step] = static_cast<std::int32_t>(at);
  }
  return steps;
}

}  // namespace

const BlendScan kPortableScan{"portable", largest, select, run};

void Candidates::pad() {
  const std::size_t end = padded(size);
  for (; size < end; ++size) {
    weights[size] = 0.0;
    counts[size] = kInfinity;
  }
}

std::vector<const BlendScan*> blend_scans() {
  std::vector<const BlendScan*> scans;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) scans.push_back(&kAvx512Scan);
  if (__builtin_cpu_supports("avx2")) scans.push_back(&kAvx2Scan);
#endif
  scans.push_back(&kPortableScan);
  return scans;
}

const BlendScan& blend_scan(const std::string& name) {
  const auto scans = blend_scans();
  if (name.empty()) return *scans.front();
  const auto found =
      std::find_if(scans.begin(), scans.end(), [&](const BlendScan* scan) { return scan->name == name; });
  require_argument(found != scans.end(), "this processor has no instruction set ", name);
  return **found;
}

}  // namespace megatron_ext
