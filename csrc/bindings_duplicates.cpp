// Shingles and clusters of documents, bound for megatron_ext.corpus.duplicates.
#include <pybind11/stl.h>

#include <cstdint>
#include <string_view>
#include <vector>

#include "bindings.h"
#include "checks.h"
#include "clusters.h"
#include "shingles.h"

namespace megatron_ext {
namespace {

template <typename T>
using Column = py::array_t<T, py::array::c_style>;

template <typename T>
std::vector<T> copied(const Column<T>& column) {
  return std::vector<T>(column.data(), column.data() + column.size());
}

py::tuple shingles(const Folding& folding, const py::list& texts, const Column<bool>& spaced,
                   std::size_t word_ngram, std::size_t character_ngram) {
  require_argument(static_cast<std::size_t>(spaced.size()) == texts.size(), "there are ", texts.size(),
                   " texts, but ", spaced.size(), " say whether words have spaces between them");
  const auto views = views_of(texts);
  const bool* by_words = spaced.data();
  std::vector<std::uint64_t> hashes;
  std::vector<std::uint64_t> offsets = {0};
  {
    const py::gil_scoped_release release;
    for (std::size_t i = 0; i < views.size(); ++i) {
      const auto unit = by_words[i] ? ShingleUnit::kWord : ShingleUnit::kCharacter;
      folding.append_shingles(views[i], unit, by_words[i] ? word_ngram : character_ngram, hashes);
      offsets.push_back(hashes.size());
    }
  }
  const auto num_hashes = static_cast<py::ssize_t>(hashes.size());
  const auto num_offsets = static_cast<py::ssize_t>(offsets.size());
  return py::make_tuple(owned(std::move(hashes), {num_hashes}), owned(std::move(offsets), {num_offsets}));
}

void join(Clusters& clusters, const Column<std::int64_t>& first, const Column<std::int64_t>& second) {
  require_argument(first.size() == second.size(), first.size(), " documents cannot be joined with ",
                   second.size());
  const auto *a = first.data(), *b = second.data();
  const auto count = first.size();
  const py::gil_scoped_release release;
  for (py::ssize_t i = 0; i < count; ++i) {
    clusters.join(static_cast<std::size_t>(a[i]), static_cast<std::size_t>(b[i]));
  }
}

py::array_t<std::uint32_t> sizes(Clusters& clusters) {
  const auto count = static_cast<py::ssize_t>(clusters.num_documents());
  std::vector<std::uint32_t> sizes;
  {
    const py::gil_scoped_release release;
    sizes = clusters.sizes();
  }
  return owned(std::move(sizes), {count});
}

}  // namespace

void bind_duplicates(py::module_& module) {
  py::class_<Folding>(module, "Folding")
      .def(py::init([](const Column<std::uint32_t>& folds, const Column<std::uint32_t>& expansions) {
             return Folding(copied(folds), copied(expansions));
           }),
           py::arg("folds"), py::arg("expansions"))
      .def("shingles", &shingles, py::arg("texts"), py::arg("spaced"), py::arg("word_ngram"),
           py::arg("character_ngram"))
      .def_property_readonly_static("DROPPED", [](const py::object&) { return Folding::kDropped; })
      .def_property_readonly_static("SEPARATOR", [](const py::object&) { return Folding::kSeparator; })
      .def_property_readonly_static("DIGIT", [](const py::object&) { return Folding::kDigit; })
      .def_property_readonly_static("EXPANSION", [](const py::object&) { return Folding::kExpansion; });
  py::class_<Clusters>(module, "Clusters")
      .def(py::init<std::size_t>(), py::arg("num_documents"))
      .def("__len__", &Clusters::num_documents)
      .def("join", &join, py::arg("first"), py::arg("second"))
      .def("sizes", &sizes);
}

}  // namespace megatron_ext
