// Clusters of documents that are joined pair by pair.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace megatron_ext {

// A union-find forest in 4 bytes a document. A cluster's root is its first document, whatever the order of
// joins.
class Clusters {
 public:
  // Throws where there are 2^32 documents or more.
  explicit Clusters(std::size_t num_documents);

  std::size_t num_documents() const { return parents_.size(); }

  // Throws where there is no such document.
  void join(std::size_t first, std::size_t second);

  // The number of documents of a cluster in the place of its root, 0 in all others.
  std::vector<std::uint32_t> sizes();

 private:
  std::uint32_t root(std::uint32_t document);

  std::vector<std::uint32_t> parents_;  // never larger than the document itself
};

}  // namespace megatron_ext
