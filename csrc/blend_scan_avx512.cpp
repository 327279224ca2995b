#include "blend_scan.h"

#if defined(__x86_64__)

// GCC 12's own header leaves a register undefined on purpose and then warns of it (its bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

#include <immintrin.h>

#include <algorithm>
#include <limits>

// Only functions marked so are compiled for AVX-512: the rest of the extension runs on every x86-64.
#define AVX512 __attribute__((target("avx512f")))

namespace megatron_ext {
namespace {

constexpr std::size_t kLanes = 8;
static_assert(kScanBlock == 2 * kLanes, "a block is two registers");
constexpr double kInfinity = std::numeric_limits<double>::infinity();

AVX512 inline __m512d errors(const double* weights, const double* counts, __m512d x) {
  return _mm512_sub_pd(_mm512_mul_pd(_mm512_load_pd(weights), x), _mm512_load_pd(counts));
}

AVX512 double largest(const double* weights, const double* counts, std::size_t size, double x) {
  const __m512d at = _mm512_set1_pd(x);
  __m512d even = _mm512_set1_pd(-kInfinity), odd = even;
  for (std::size_t i = 0; i < size; i += kScanBlock) {
    even = _mm512_max_pd(even, errors(weights + i, counts + i, at));
    odd = _mm512_max_pd(odd, errors(weights + i + kLanes, counts + i + kLanes, at));
  }
  return _mm512_reduce_max_pd(_mm512_max_pd(even, odd));
}

AVX512 void select(const double* weights, const double* counts, std::size_t size, double x, double floor,
                   Candidates& candidates) {
  const __m512d at = _mm512_set1_pd(x), lowest = _mm512_set1_pd(floor);
  __m512i ids = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 0, 0, 0, 0, 0, 0, 0, 0);
  std::size_t found = 0;
  for (std::size_t i = 0; i < size; i += kLanes) {
    const __mmask8 kept = _mm512_cmp_pd_mask(errors(weights + i, counts + i, at), lowest, _CMP_GE_OQ);
    _mm512_storeu_pd(&candidates.weights[found], _mm512_maskz_compress_pd(kept, _mm512_load_pd(weights + i)));
    _mm512_storeu_pd(&candidates.counts[found], _mm512_maskz_compress_pd(kept, _mm512_load_pd(counts + i)));
    _mm512_storeu_si512(&candidates.ids[found], _mm512_maskz_compress_epi32(kept, ids));
    ids = _mm512_add_epi32(ids, _mm512_set1_epi32(kLanes));
    found += static_cast<std::size_t>(__builtin_popcount(kept));
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

AVX512 std::size_t run(Candidates& candidates, std::int64_t position, std::size_t steps, double floor,
                       std::int32_t* drawn) {
  const double* weights = candidates.weights.data();
  double* counts = candidates.counts.data();
  const __m512i block = _mm512_set1_epi64(kScanBlock);
  alignas(64) std::int64_t positions[kScanBlock];
  for (std::size_t step = 0; step < steps; ++step) {
    const __m512d x = _mm512_set1_pd(blend_time(position + static_cast<std::int64_t>(step)));
    // Each lane keeps its first largest error and where it was.
    __m512d even = _mm512_set1_pd(-kInfinity), odd = even;
    __m512i i_even = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7), even_at = i_even;
    __m512i i_odd = _mm512_add_epi64(i_even, _mm512_set1_epi64(kLanes)), odd_at = i_odd;
    for (std::size_t i = 0; i < candidates.size; i += kScanBlock) {
      const __m512d error = errors(weights + i, counts + i, x);
      const __m512d next = errors(weights + i + kLanes, counts + i + kLanes, x);
      even_at = _mm512_mask_mov_epi64(even_at, _mm512_cmp_pd_mask(error, even, _CMP_GT_OQ), i_even);
      odd_at = _mm512_mask_mov_epi64(odd_at, _mm512_cmp_pd_mask(next, odd, _CMP_GT_OQ), i_odd);
      even = _mm512_max_pd(even, error);
      odd = _mm512_max_pd(odd, next);
      i_even = _mm512_add_epi64(i_even, block);
      i_odd = _mm512_add_epi64(i_odd, block);
    }
    const double error = _mm512_reduce_max_pd(_mm512_max_pd(even, odd));
    if (error < floor) return step;
    _mm512_store_si512(positions, even_at);
    _mm512_store_si512(positions + kLanes, odd_at);
    const __m512d winner = _mm512_set1_pd(error);
    const unsigned lanes = static_cast<unsigned>(_mm512_cmp_pd_mask(even, winner, _CMP_EQ_OQ)) |
                           static_cast<unsigned>(_mm512_cmp_pd_mask(odd, winner, _CMP_EQ_OQ)) << kLanes;
    const std::int64_t at =
        (lanes & (lanes - 1)) == 0 ? positions[__builtin_ctz(lanes)] : first_of(positions, lanes);
    // In whole registers: the next draw's load would wait for a narrower store to reach the cache.
    double* counted = counts + at / static_cast<std::int64_t>(kLanes) * static_cast<std::int64_t>(kLanes);
    const auto lane = static_cast<__mmask8>(1U << (at % static_cast<std::int64_t>(kLanes)));
    const __m512d before = _mm512_load_pd(counted);
    _mm512_store_pd(counted, _mm512_mask_add_pd(before, lane, before, _mm512_set1_pd(1.0)));
    drawn[step] = static_cast<std::int32_t>(at);
  }
  return steps;
}

}  // namespace

const BlendScan kAvx512Scan{"avx512", largest, select, run};

}  // namespace megatron_ext

#endif
