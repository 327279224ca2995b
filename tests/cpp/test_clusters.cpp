#include <algorithm>
#include <random>

#include "clusters.h"
#include "testing.h"

namespace megatron_ext::testing {
namespace {

using Sizes = std::vector<std::uint32_t>;

void the_first_document_stands_for_its_cluster() {
  Clusters clusters(6);
  clusters.join(5, 3);
  clusters.join(4, 2);
  clusters.join(3, 4);
  clusters.join(1, 1);
  CHECK(clusters.sizes() == (Sizes{1, 1, 4, 0, 0, 0}));
}

// A chain in random order is one cluster, as long as it is whole.
void a_long_chain_is_one_cluster() {
  constexpr std::size_t kLength = 100'000;
  std::vector<std::size_t> firsts;
  for (std::size_t i = 0; i + 1 < kLength; ++i) {
    if (i != 60'000) firsts.push_back(i);
  }
  std::shuffle(firsts.begin(), firsts.end(), std::mt19937(1));
  Clusters clusters(kLength);
  for (const auto first : firsts) clusters.join(first + 1, first);
  const auto sizes = clusters.sizes();
  CHECK(sizes[0] == 60'001 && sizes[60'001] == kLength - 60'001);
}

void documents_that_do_not_exist_are_refused() {
  Clusters clusters(3);
  CHECK(throws<std::invalid_argument>([&] { clusters.join(0, 3); }, "no document 3 among 3"));
  CHECK(throws<std::invalid_argument>([&] { clusters.join(static_cast<std::size_t>(-1), 0); }));
  CHECK(throws<std::invalid_argument>([] { Clusters(std::size_t{1} << 32); }, "can be clustered"));
  CHECK(Clusters(0).sizes().empty());
}

}  // namespace
}  // namespace megatron_ext::testing

int main() {
  megatron_ext::testing::the_first_document_stands_for_its_cluster();
  megatron_ext::testing::a_long_chain_is_one_cluster();
  megatron_ext::testing::documents_that_do_not_exist_are_refused();
}
