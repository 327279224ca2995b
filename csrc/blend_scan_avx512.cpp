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
  __m512i ids = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  std::size_t found = 0;
  for (std::size_t i = 0; i < size; i += kScanBlock) {
    const unsigned even = _mm512_cmp_pd_mask(errors(weights + i, counts + i, at), lowest, _CMP_GE_OQ);
    const unsigned odd =
        _mm512_cmp_pd_mask(errors(weights + i + kLanes, counts + i + kLanes, at), lowest, _CMP_GE_OQ);
    const auto kept = static_cast<__mmask16>(even | odd << kLanes);
    _mm512_storeu_si512(&candidates.ids[found], _mm512_maskz_compress_epi32(kept, ids));
    ids = _mm512_add_epi32(ids, _mm512_set1_epi32(kScanBlock));
    found += static_cast<std::size_t>(__builtin_popcount(kept));
  }
  candidates.size = padded(found);
  for (std::size_t i = 0; i < candidates.size; i += kLanes) {
    // Lanes behind the last candidate read nothing and keep the padding.
    const std::size_t left = found > i ? std::min(found - i, kLanes) : 0;
    const auto real = static_cast<__mmask8>((1U << left) - 1);
    const __m256i from = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(&candidates.ids[i]));
    const __m512d rest = _mm512_set1_pd(kInfinity);
    _mm512_store_pd(&candidates.weights[i],
                    _mm512_mask_i32gather_pd(_mm512_setzero_pd(), real, from, weights, sizeof(double)));
    _mm512_store_pd(&candidates.counts[i],
                    _mm512_mask_i32gather_pd(rest, real, from, counts, sizeof(double)));
  }
}

// Equal errors in several lanes: the first candidate among them.
[[gnu::noinline]] std::int64_t first_of(const std::int64_t* positions, unsigned lanes) {
  std::int64_t first = std::numeric_limits<std::int64_t>::max();
  for (; lanes != 0; lanes &= lanes - 1) first = std::min(first, positions[__builtin_ctz(lanes)]);
  return first;
}

// The largest in every lane.
AVX512 inline __m512d spread_largest(__m512d values) {
  values = _mm512_max_pd(values, _mm512_shuffle_f64x2(values, values, 0x4E));
  values = _mm512_max_pd(values, _mm512_shuffle_f64x2(values, values, 0xB1));
  return _mm512_max_pd(values, _mm512_permute_pd(values, 0x55));
}

// `run` for so few candidates that they stay in registers: a draw has to wait for the one before, and this is
// the shortest way from one to the next. Loops are unrolled, or the arrays would not be registers.
template <std::size_t kRegisters>
AVX512 std::size_t run_in_registers(const Candidates& candidates, std::int64_t position, std::size_t steps,
                                    double floor, std::int32_t* drawn) {
  const __m512d lowest = _mm512_set1_pd(floor), one = _mm512_set1_pd(1.0);
  __m512d weights[kRegisters], counts[kRegisters], error[kRegisters], best[kRegisters];
#pragma GCC unroll 8
  for (std::size_t r = 0; r < kRegisters; ++r) {
    weights[r] = _mm512_load_pd(&candidates.weights[r * kLanes]);
    counts[r] = _mm512_load_pd(&candidates.counts[r * kLanes]);
  }
  for (std::size_t step = 0; step < steps; ++step) {
    const __m512d x = _mm512_set1_pd(blend_time(position + static_cast<std::int64_t>(step)));
#pragma GCC unroll 8
    for (std::size_t r = 0; r < kRegisters; ++r) {
      best[r] = error[r] = _mm512_sub_pd(_mm512_mul_pd(weights[r], x), counts[r]);
    }
#pragma GCC unroll 8
    for (std::size_t left = kRegisters; left > 1; left = (left + 1) / 2) {
      for (std::size_t r = 0; r < left / 2; ++r) best[r] = _mm512_max_pd(best[r], best[left - 1 - r]);
    }
    const __m512d winner = spread_largest(best[0]);
    if (_mm512_cmp_pd_mask(winner, lowest, _CMP_LT_OQ) != 0) return step;
    std::uint64_t equal = 0;
#pragma GCC unroll 8
    for (std::size_t r = 0; r < kRegisters; ++r) {
      equal |= static_cast<std::uint64_t>(_mm512_cmp_pd_mask(error[r], winner, _CMP_EQ_OQ)) << (r * kLanes);
    }
    const std::uint64_t first = equal & -equal;
#pragma GCC unroll 8
    for (std::size_t r = 0; r < kRegisters; ++r) {
      const auto lane = static_cast<__mmask8>(first >> (r * kLanes));
      counts[r] = _mm512_mask_add_pd(counts[r], lane, counts[r], one);
    }
    drawn[step] = static_cast<std::int32_t>(__builtin_ctzll(first));
  }
  return steps;
}

// `run` for any number of candidates.
AVX512 std::size_t run_in_memory(Candidates& candidates, std::int64_t position, std::size_t steps,
                                 double floor, std::int32_t* drawn) {
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

std::size_t run(Candidates& candidates, std::int64_t position, std::size_t steps, double floor,
                std::int32_t* drawn) {
  switch (candidates.size / kScanBlock) {
    case 1:
      return run_in_registers<2>(candidates, position, steps, floor, drawn);
    case 2:
      return run_in_registers<4>(candidates, position, steps, floor, drawn);
    case 3:
      return run_in_registers<6>(candidates, position, steps, floor, drawn);
    case 4:
      return run_in_registers<8>(candidates, position, steps, floor, drawn);
    default:
      return run_in_memory(candidates, position, steps, floor, drawn);
  }
}

}  // namespace

const BlendScan kAvx512Scan{"avx512", largest, select, run};

}  // namespace megatron_ext

#endif
