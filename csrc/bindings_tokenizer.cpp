// Encoders of text, bound for megatron_ext.tokenizer.
#include "bindings.h"
#include "bpe_encoder.h"
#include "bpe_model.h"
#include "byte_encoder.h"
#include "sentencepiece_model.h"
#include "text_encoder.h"

namespace megatron_ext {
namespace {

// Under the GIL, which keeps other threads out of an encoder: it remembers what it has seen.
py::array_t<std::int32_t> encode(TextEncoder& encoder, const py::bytes& text) {
  std::vector<std::uint32_t> ids;
  encoder.encode(static_cast<std::string_view>(text), ids);
  const auto count = static_cast<py::ssize_t>(ids.size());
  return owned(std::vector<std::int32_t>(ids.begin(), ids.end()), {count});
}

std::unique_ptr<BpeEncoder> make_bpe_encoder(const py::bytes& model) {
  const auto serialized = static_cast<std::string_view>(model);
  const py::gil_scoped_release release;
  return std::make_unique<BpeEncoder>(
      std::make_shared<const BpeModel>(parse_sentencepiece_model(serialized)));
}

}  // namespace

void bind_tokenizer(py::module_& module) {
  py::class_<TextEncoder>(module, "TextEncoder")
      .def("encode", &encode, py::arg("text"))
      .def("clone", &TextEncoder::clone);
  py::class_<ByteEncoder, TextEncoder>(module, "ByteEncoder").def(py::init<>());
  py::class_<BpeEncoder, TextEncoder>(module, "BpeEncoder")
      .def(py::init(&make_bpe_encoder), py::arg("model"));
}

}  // namespace megatron_ext
