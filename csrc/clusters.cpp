#include "clusters.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "checks.h"

namespace megatron_ext {

Clusters::Clusters(std::size_t num_documents) {
  constexpr std::size_t kMost = std::numeric_limits<std::uint32_t>::max();
  require_argument(num_documents <= kMost, num_documents, " documents; at most ", kMost, " can be clustered");
  parents_.resize(num_documents);
  std::iota(parents_.begin(), parents_.end(), std::uint32_t{0});
}

void Clusters::join(std::size_t first, std::size_t second) {
  const auto last = std::max(first, second);
  require_argument(last < parents_.size(), "there is no document ", last, " among ", parents_.size());
  const auto a = root(static_cast<std::uint32_t>(first));
  const auto b = root(static_cast<std::uint32_t>(second));
  parents_[std::max(a, b)] = std::min(a, b);
}

// Halves the path on its way (van Leeuwen, van der Weide 1977).
std::uint32_t Clusters::root(std::uint32_t document) {
  while (parents_[document] != document) {
    parents_[document] = parents_[parents_[document]];
    document = parents_[document];
  }
  return document;
}

std::vector<std::uint32_t> Clusters::sizes() {
  std::vector<std::uint32_t> sizes(parents_.size());
  for (std::size_t i = 0; i < parents_.size(); ++i) ++sizes[root(static_cast<std::uint32_t>(i))];
  return sizes;
}

}  // namespace megatron_ext
