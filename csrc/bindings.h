// What the files that bind C++ to Python have in common.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string_view>
#include <utility>
#include <vector>

namespace py = pybind11;

namespace megatron_ext {

using ReleaseGil = py::call_guard<py::gil_scoped_release>;

void bind_duplicates(py::module_& module);
void bind_quality(py::module_& module);
void bind_text(py::module_& module);
void bind_tokenizer(py::module_& module);

// An array that took over `values`.
template <typename T>
py::array_t<T> owned(std::vector<T> values, std::vector<py::ssize_t> shape) {
  auto* storage = new std::vector<T>(std::move(values));
  const py::capsule owner(storage, [](void* pointer) { delete static_cast<std::vector<T>*>(pointer); });
  return py::array_t<T>(std::move(shape), storage->data(), owner);
}

// Strings lend their UTF-8 (CPython keeps it with them), which `texts` keeps alive.
inline std::vector<std::string_view> views_of(const py::list& texts) {
  std::vector<std::string_view> views;
  views.reserve(texts.size());
  for (const auto& text : texts) views.push_back(text.cast<std::string_view>());
  return views;
}

}  // namespace megatron_ext
