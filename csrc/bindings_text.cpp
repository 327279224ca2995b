// Rows of text between their files and their ids, bound for megatron_ext.data.
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bindings.h"
#include "checks.h"
#include "json_lines.h"
#include "text_encoder.h"
#include "texts.h"
#include "utf8.h"

namespace megatron_ext {
namespace {

Texts json_texts(const py::bytes& block, const std::vector<std::string>& keys) {
  const auto view = static_cast<std::string_view>(block);
  const py::gil_scoped_release release;
  return scan_json_lines(view, keys);
}

// A row is odd where a column has no bytes, or bytes that are not UTF-8.
Texts column_texts(const py::tuple& columns) {
  std::vector<std::vector<std::string_view>> rows;  // a null view for what is no bytes
  for (const auto& column : columns) {
    const auto values = column.cast<py::tuple>();
    if (rows.empty()) rows.resize(values.size());
    require_argument(values.size() == rows.size(), "columns are of one length");
    for (std::size_t row = 0; row < rows.size(); ++row) {
      const py::object value = values[row];
      rows[row].push_back(py::isinstance<py::bytes>(value) ? std::string_view(py::bytes(value))
                                                           : std::string_view());
    }
  }
  const py::gil_scoped_release release;
  Texts texts(columns.size());
  for (const auto& row : rows) {
    const bool plain = std::all_of(row.begin(), row.end(),
                                   [](auto text) { return text.data() != nullptr && is_utf8(text); });
    plain ? texts.add(row) : texts.add_odd();
  }
  return texts;
}

Texts odd_texts(std::size_t num_rows, std::size_t num_keys) {
  Texts texts(num_keys);
  for (std::size_t row = 0; row < num_rows; ++row) texts.add_odd();
  return texts;
}

void replace(Texts& texts, std::size_t row, const std::vector<py::bytes>& values) {
  texts.replace(row, std::vector<std::string_view>(values.begin(), values.end()));
}

py::list strings(const Texts& texts, std::size_t key) {
  py::list out;
  for (const auto text : texts.of_key(key)) out.append(py::str(text.data(), text.size()));
  return out;
}

template <typename Token>
py::tuple encode_as(const Texts& texts, TextEncoder& encoder, std::size_t key, std::optional<Token> before,
                    std::optional<Token> after) {
  EncodedTexts<Token> encoded;
  {
    const py::gil_scoped_release release;
    encoded = texts.encode(encoder, key, before, after);
  }
  const auto tokens = static_cast<py::ssize_t>(encoded.tokens.size());
  const auto documents = static_cast<py::ssize_t>(encoded.lengths.size());
  return py::make_tuple(owned(std::move(encoded.tokens), {tokens}),
                        owned(std::move(encoded.lengths), {documents}), encoded.text_bytes, encoded.empty);
}

// `before` and `after` are converted with a check: an id that does not fit is a TypeError.
py::tuple encode(const Texts& texts, TextEncoder& encoder, std::size_t key, const py::dtype& dtype,
                 const py::object& before, const py::object& after) {
  const auto as = [&](auto token) {
    using Id = std::optional<decltype(token)>;
    return encode_as(texts, encoder, key, before.cast<Id>(), after.cast<Id>());
  };
  if (dtype.equal(py::dtype::of<std::uint16_t>())) return as(std::uint16_t{});
  require_argument(dtype.equal(py::dtype::of<std::int32_t>()), "ids are uint16 or int32");
  return as(std::int32_t{});
}

}  // namespace

void bind_text(py::module_& module) {
  // The texts may lie in the first argument, which is kept with them.
  module.def("json_texts", &json_texts, py::arg("block"), py::arg("keys"), py::keep_alive<0, 1>());
  module.def("column_texts", &column_texts, py::arg("columns"), py::keep_alive<0, 1>());
  module.def("odd_texts", &odd_texts, py::arg("num_rows"), py::arg("num_keys"));
  py::class_<Texts>(module, "Texts")
      .def("__len__", &Texts::num_rows)
      .def("odd_rows", &Texts::odd_rows)
      .def("replace", &replace, py::arg("row"), py::arg("texts"))
      .def("drop", &Texts::drop, py::arg("row"))
      .def("strings", &strings, py::arg("key"))
      .def("encode", &encode, py::arg("encoder"), py::arg("key"), py::arg("dtype"), py::arg("before"),
           py::arg("after"));
}

}  // namespace megatron_ext
