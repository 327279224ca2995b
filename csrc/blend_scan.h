// The inner loops of the blend, one version for each instruction set, chosen at run time. All make the same
// draws: a multiplication, a subtraction and comparisons round alike in every width (never fused: see
// setup.py).
//
// The error of a dataset at x is weight * x - count. Arrays are padded to whole blocks with weight 0 and
// count infinity, whose error is never the largest; nothing is NaN.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <string>
#include <vector>

namespace megatron_ext {

constexpr std::size_t kScanBlock = 16;
inline std::size_t padded(std::size_t size) { return (size + kScanBlock - 1) / kScanBlock * kScanBlock; }

// Aligned, because a wide access that straddles two cache lines costs as much as two.
template <typename T>
struct CacheLineAllocator {
  using value_type = T;
  static constexpr std::align_val_t kCacheLine{64};

  CacheLineAllocator() = default;
  template <typename U>
  CacheLineAllocator(const CacheLineAllocator<U>&) {}
  T* allocate(std::size_t size) { return static_cast<T*>(::operator new(size * sizeof(T), kCacheLine)); }
  void deallocate(T* pointer, std::size_t) { ::operator delete(pointer, kCacheLine); }
  bool operator==(const CacheLineAllocator&) const { return true; }
  bool operator!=(const CacheLineAllocator&) const { return false; }
};
using Doubles = std::vector<double, CacheLineAllocator<double>>;

// The datasets that a few draws can come from, in ascending order.
struct Candidates {
  // Rounded up to whole blocks, and one more for stores of whole registers behind the last candidate.
  explicit Candidates(std::size_t capacity)
      : weights(capacity + kScanBlock), counts(capacity + kScanBlock), ids(capacity + kScanBlock) {}
  void pad();  // `size` becomes a multiple of kScanBlock

  Doubles weights, counts;
  std::vector<std::int32_t> ids;
  std::size_t size = 0;
};

struct BlendScan {
  const char* name;
  // The largest error; size is a multiple of kScanBlock.
  double (*largest)(const double* weights, const double* counts, std::size_t size, double x);
  // Sets the candidates to the datasets whose error at x is at least `floor`, padded.
  void (*select)(const double* weights, const double* counts, std::size_t size, double x, double floor,
                 Candidates& candidates);
  // Draws from candidates at `position`, position + 1, …: each time the first of largest error. Stops after
  // `steps` draws, or before one whose error is below `floor`. Writes the candidates drawn, returns how many.
  std::size_t (*run)(Candidates& candidates, std::int64_t position, std::size_t steps, double floor,
                     std::int32_t* drawn);
};

// What this processor can run, the fastest first; "portable" is the last and always there.
std::vector<const BlendScan*> blend_scans();
// By name; an empty one is the fastest. Throws std::invalid_argument if this processor has none such.
const BlendScan& blend_scan(const std::string& name);

// Where the rule reads the position: draws 0 and 1 see the same.
inline double blend_time(std::int64_t position) { return position < 1 ? 1.0 : static_cast<double>(position); }

extern const BlendScan kPortableScan;
#if defined(__x86_64__)
extern const BlendScan kAvx2Scan;
extern const BlendScan kAvx512Scan;
#endif

}  // namespace megatron_ext
