// Encoders of text, bound for megatron_ext.tokenizer.
#include "bindings.h"
#include "byte_encoder.h"
#include "text_encoder.h"

namespace megatron_ext {
namespace {

py::array_t<std::int32_t> encode(TextEncoder& encoder, const py::bytes& text) {
  const auto view = static_cast<std::string_view>(text);
  std::vector<std::uint32_t> ids;
  {
    const py::gil_scoped_release release;
    encoder.encode(view, ids);
  }
  const auto count = static_cast<py::ssize_t>(ids.size());
  return owned(std::vector<std::int32_t>(ids.begin(), ids.end()), {count});
}

}  // namespace

void bind_tokenizer(py::module_& module) {
  py::class_<TextEncoder>(module, "TextEncoder")
      .def("encode", &encode, py::arg("text"))
      .def("clone", &TextEncoder::clone);
  py::class_<ByteEncoder, TextEncoder>(module, "ByteEncoder").def(py::init<>());
}

}  // namespace megatron_ext
