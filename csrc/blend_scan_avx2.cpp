#include "blend_scan.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <limits>

// Only functions marked so are compiled for AVX2: the rest of the extension runs on every x86-64.
#define AVX2 __attribute__((target("avx2")))

namespace megatron_ext {
namespace {

constexpr std::size_t kLanes = 4;
static_assert(kScanBlock % (2 * kLanes) == 0, "a block is whole pairs of registers");
constexpr double kInfinity = std::numeric_limits<double>::infinity();

AVX2 inline __m256d errors(const double* weights, const double* counts, __m256d x) {
  return _mm256_sub_pd(_mm256_mul_pd(_mm256_load_pd(weights), x), _mm256_load_pd(counts));
}

AVX2 inline double largest_lane(__m256d values) {
  const __m128d pair = _mm_max_pd(_mm256_castpd256_pd128(values), _mm256_extractf128_pd(values, 1));
  return _mm_cvtsd_f64(_mm_max_sd(pair, _mm_unpackhi_pd(pair, pair)));
}

AVX2 double largest(const double* weights, const double* counts, std::size_t size, double x) {
  const __m256d at = _mm256_set1_pd(x);
  __m256d even = _mm256_set1_pd(-kInfinity), odd = even;
  for (std::size_t i = 0; i < size; i += 2 * kLanes) {
    even = _mm256_max_pd(even, errors(weights + i, counts + i, at));
    odd = _mm256_max_pd(odd, errors(weights + i + kLanes, counts + i + kLanes, at));
  }
  return largest_lane(_mm256_max_pd(even, odd));
}

AVX2 void select(const double* weights, const double* counts, std::size_t size, double x, double floor,
                 Candidates& candidates) {
  const __m256d at = _mm256_set1_pd(x), lowest = _mm256_set1_pd(floor);
  std::size_t found = 0;
  for (std::size_t i = 0; i < size; i += 2 * kLanes) {
    const __m256d low = _mm256_cmp_pd(errors(weights + i, counts + i, at), lowest, _CMP_GE_OQ);
    const __m256d high =
        _mm256_cmp_pd(errors(weights + i + kLanes, counts + i + kLanes, at), lowest, _CMP_GE_OQ);
    auto kept = static_cast<unsigned>(_mm256_movemask_pd(low) | _mm256_movemask_pd(high) << kLanes);
    for (; kept != 0; kept &= kept - 1, ++found) {
      const std::size_t id = i + static_cast<std::size_t>(__builtin_ctz(kept));
      candidates.weights[found] = weights[id];
      candidates.counts[found] = counts[id];
      candidates.ids[found] = static_cast<std::int32_t>(id);
    }
  }
  candidates.size = found;
  candidates.pad();
}

// Equal errors in several lanes: the first candidate among them.
[[gnu::noinline]] std::int64_t first_of(const std::int64_t* positions, unsigned lanes) {
  std::int64_t first = std::numeric_limits<std::int64_t>::max();
  for (; lanes != 0; lanes &= lanes - 1) first = std::min(first, positions[__builtin_ctz(lanes)]);
  return first;
}

AVX2 std::size_t run(Candidates& candidates, std::int64_t position, std::size_t steps, double floor,
                     std::int32_t* drawn) {
  // Sliding over it gives a register with a 1 in one lane.
  static constexpr double kOne[2 * kLanes - 1] = {0, 0, 0, 1, 0, 0, 0};
  const double* weights = candidates.weights.data();
  double* counts = candidates.counts.data();
  const __m256i pair = _mm256_set1_epi64x(2 * kLanes);
  alignas(64) std::int64_t positions[2 * kLanes];
  for (std::size_t step = 0; step < steps; ++step) {
    const __m256d x = _mm256_set1_pd(blend_time(position + static_cast<std::int64_t>(step)));
    // Each lane keeps its first largest error and where it was.
    __m256d even = _mm256_set1_pd(-kInfinity), odd = even;
    __m256i i_even = _mm256_setr_epi64x(0, 1, 2, 3), even_at = i_even;
    __m256i i_odd = _mm256_setr_epi64x(4, 5, 6, 7), odd_at = i_odd;
    for (std::size_t i = 0; i < candidates.size; i += 2 * kLanes) {
      const __m256d error = errors(weights + i, counts + i, x);
      const __m256d next = errors(weights + i + kLanes, counts + i + kLanes, x);
      const auto rises = _mm256_castpd_si256(_mm256_cmp_pd(error, even, _CMP_GT_OQ));
      const auto next_rises = _mm256_castpd_si256(_mm256_cmp_pd(next, odd, _CMP_GT_OQ));
      even_at = _mm256_blendv_epi8(even_at, i_even, rises);
      odd_at = _mm256_blendv_epi8(odd_at, i_odd, next_rises);
      even = _mm256_max_pd(even, error);
      odd = _mm256_max_pd(odd, next);
      i_even = _mm256_add_epi64(i_even, pair);
      i_odd = _mm256_add_epi64(i_odd, pair);
    }
    const double error = largest_lane(_mm256_max_pd(even, odd));
    if (error < floor) return step;
    _mm256_store_si256(reinterpret_cast<__m256i*>(positions), even_at);
    _mm256_store_si256(reinterpret_cast<__m256i*>(positions + kLanes), odd_at);
    const __m256d winner = _mm256_set1_pd(error);
    const auto lanes =
        static_cast<unsigned>(_mm256_movemask_pd(_mm256_cmp_pd(even, winner, _CMP_EQ_OQ)) |
                              _mm256_movemask_pd(_mm256_cmp_pd(odd, winner, _CMP_EQ_OQ)) << kLanes);
    const std::int64_t at =
        (lanes & (lanes - 1)) == 0 ? positions[__builtin_ctz(lanes)] : first_of(positions, lanes);
    // In whole registers: the next draw's load would wait for a narrower store to reach the cache.
    const auto lane = static_cast<std::size_t>(at) % kLanes;
    double* counted = counts + (static_cast<std::size_t>(at) - lane);
    _mm256_store_pd(counted,
                    _mm256_add_pd(_mm256_load_pd(counted), _mm256_loadu_pd(kOne + kLanes - 1 - lane)));
    drawn[step] = static_cast<std::int32_t>(at);
  }
  return steps;
}

}  // namespace

const BlendScan kAvx2Scan{"avx2", largest, select, run};

}  // namespace megatron_ext

#endif
