#include <stdexcept>

#include "shuffle.h"
#include "testing.h"

namespace megatron_ext::testing {
namespace {

void every_size_is_permuted() {
  for (std::uint64_t size = 1; size < 300; ++size) {
    const Permutation permutation(size, size * 77);
    std::vector<int> seen(size);
    for (std::uint64_t i = 0; i < size; ++i) ++seen.at(permutation(i));
    CHECK(seen == std::vector<int>(size, 1));
  }
}

void large_sizes_stay_in_range() {
  for (const std::uint64_t size : {(1ull << 31) + 1, (1ull << 32) - 1, (1ull << 62) - 1, 1ull << 62}) {
    const Permutation permutation(size, ~0ull);
    for (std::uint64_t i = 0; i < 1000; ++i) {
      CHECK(permutation(i) < size && permutation(size - 1 - i) < size &&
            permutation(i) != permutation(i + 1));
    }
  }
}

void what_is_no_index_is_refused() {
  CHECK(throws<std::invalid_argument>([] { Permutation(0, 1); }));
  CHECK(throws<std::invalid_argument>([] { Permutation((1ull << 62) + 1, 1); }));
  const Permutation permutation(10, 1);
  CHECK(throws<std::invalid_argument>([&] { permutation(10); }));
  CHECK(throws<std::invalid_argument>([&] { permutation(~0ull); }));
}

}  // namespace
}  // namespace megatron_ext::testing

int main() {
  megatron_ext::testing::every_size_is_permuted();
  megatron_ext::testing::large_sizes_stay_in_range();
  megatron_ext::testing::what_is_no_index_is_refused();
}
