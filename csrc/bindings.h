// What the files that bind C++ to Python have in common.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <utility>
#include <vector>

namespace py = pybind11;

namespace megatron_ext {

using ReleaseGil = py::call_guard<py::gil_scoped_release>;

void bind_duplicates(py::module_& module);
void bind_text(py::module_& module);
void bind_tokenizer(py::module_& module);

// An array that took over `values`.
template <typename T>
py::array_t<T> owned(std::vector<T> values, std::vector<py::ssize_t> shape) {
  auto* storage = new std::vector<T>(std::move(values));
  const py::capsule owner(storage, [](void* pointer) { delete static_cast<std::vector<T>*>(pointer); });
  return py::array_t<T>(std::move(shape), storage->data(), owner);
}

}  // namespace megatron_ext
