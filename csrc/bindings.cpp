// Python sees csrc through bindings*.cpp and through nothing else. No algorithm lives here: arguments are
// turned into pointers, the GIL is released, and results come back as arrays that own their memory.
#include "bindings.h"

#include <pybind11/stl.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "blend.h"
#include "blend_scan.h"
#include "checks.h"
#include "indexed_builder.h"
#include "indexed_format.h"
#include "indexed_reader.h"
#include "sample_index.h"
#include "shuffle.h"

namespace megatron_ext {
namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;

py::dtype dtype_of(TokenType type) {
  switch (type) {
    case TokenType::kUint8:
      return py::dtype::of<std::uint8_t>();
    case TokenType::kInt8:
      return py::dtype::of<std::int8_t>();
    case TokenType::kInt16:
      return py::dtype::of<std::int16_t>();
    case TokenType::kInt32:
      return py::dtype::of<std::int32_t>();
    case TokenType::kInt64:
      return py::dtype::of<std::int64_t>();
    case TokenType::kUint16:
      return py::dtype::of<std::uint16_t>();
    case TokenType::kFloat64:
    case TokenType::kFloat32:
      break;
  }
  throw std::invalid_argument("tokens are integers");
}

TokenType token_type_of(const py::dtype& dtype) {
  for (const auto type : {TokenType::kUint8, TokenType::kInt8, TokenType::kInt16, TokenType::kInt32,
                          TokenType::kInt64, TokenType::kUint16}) {
    if (dtype.is(dtype_of(type)) || dtype.equal(dtype_of(type))) return type;
  }
  throw std::invalid_argument("tokens cannot be stored as " + py::str(dtype).cast<std::string>());
}

const std::byte* bytes_of(const py::array& array) { return static_cast<const std::byte*>(array.data()); }

// C++ exceptions that have a better Python counterpart than RuntimeError.
void translate_exceptions(std::exception_ptr raised) {
  try {
    if (raised) std::rethrow_exception(raised);
  } catch (const DataError& error) {
    py::set_error(py::module_::import("megatron_ext.errors").attr("DataError"), error.what());
  } catch (const std::system_error& error) {
    py::set_error(PyExc_OSError, py::make_tuple(error.code().value(), error.what()));
  }
}

py::array read_sequence(const IndexedReader& reader, std::int64_t sequence, std::int64_t offset,
                        std::int64_t length) {
  const auto available = reader.sequence_length(sequence);
  if (offset < 0 || length < 0 || offset > available || length > available - offset) {
    throw std::out_of_range(concat(reader.path(), ": sequence ", sequence, " has ", available,
                                   " tokens, not ", length, " from ", offset, " on"));
  }
  const std::byte* tokens = reader.tokens(reader.sequence_start(sequence) + offset, length);
  py::array out(dtype_of(reader.token_type()), std::vector<py::ssize_t>{static_cast<py::ssize_t>(length)});
  if (length > 0)
    std::memcpy(out.mutable_data(), tokens, static_cast<std::size_t>(length) * reader.token_bytes());
  return out;
}

void bind_indexed(py::module_& module) {
  py::class_<IndexedReader, std::shared_ptr<IndexedReader>>(module, "IndexedReader")
      .def(py::init<const std::string&>(), py::arg("prefix"), ReleaseGil())
      .def("verify", &IndexedReader::verify, ReleaseGil())
      .def_property_readonly("num_sequences", &IndexedReader::num_sequences)
      .def_property_readonly("num_documents", &IndexedReader::num_documents)
      .def_property_readonly("num_tokens", &IndexedReader::num_tokens)
      .def_property_readonly("dtype",
                             [](const IndexedReader& reader) { return dtype_of(reader.token_type()); })
      .def("sequence_length", &IndexedReader::sequence_length, py::arg("sequence"))
      .def("sequence_start", &IndexedReader::sequence_start, py::arg("sequence"))
      .def("sequence_lengths",
           [](const IndexedReader& reader) {
             py::array_t<std::int32_t> out(reader.num_sequences());
             auto* lengths = out.mutable_data();
             {
               const py::gil_scoped_release release;
               reader.copy_sequence_lengths(lengths);
             }
             return out;
           })
      .def("document_indices",
           [](const IndexedReader& reader) {
             py::array_t<std::int64_t> out(reader.num_documents() + 1);
             auto* indices = out.mutable_data();
             {
               const py::gil_scoped_release release;
               reader.copy_document_indices(indices);
             }
             return out;
           })
      .def("read", &read_sequence, py::arg("sequence"), py::arg("offset"), py::arg("length"));

  py::class_<IndexedBuilder>(module, "IndexedBuilder")
      .def(py::init([](int bin_descriptor, int idx_descriptor, const py::dtype& dtype) {
             return IndexedBuilder(bin_descriptor, idx_descriptor, token_type_of(dtype));
           }),
           py::arg("bin_descriptor"), py::arg("idx_descriptor"), py::arg("dtype"))
      .def_property_readonly("num_documents", &IndexedBuilder::num_documents)
      .def_property_readonly("num_tokens", &IndexedBuilder::num_tokens)
      .def(
          "add_documents",
          [](IndexedBuilder& builder, const py::array& tokens, const Array<std::int64_t>& lengths) {
            require_argument(tokens.ndim() == 1 && lengths.ndim() == 1,
                             "tokens and lengths are one-dimensional");
            require_argument(tokens.dtype().equal(dtype_of(builder.token_type())) &&
                                 (tokens.flags() & py::array::c_style) != 0,
                             "tokens must be contiguous and of the dataset's dtype");
            const auto* data = bytes_of(tokens);
            const auto* document_lengths = lengths.data();
            const auto num_tokens = tokens.size();
            const auto num_documents = lengths.size();
            const py::gil_scoped_release release;
            builder.add_documents(data, num_tokens, document_lengths, num_documents);
          },
          py::arg("tokens"), py::arg("lengths"))
      .def("finish", &IndexedBuilder::finish, ReleaseGil());
}

template <typename T>
std::vector<T> copied(const Array<T>& array) {
  return std::vector<T>(array.data(), array.data() + array.size());
}

py::array_t<std::int32_t> sample_index(const Array<std::int32_t>& sequence_lengths,
                                       const Array<std::int32_t>& sequence_order, std::int64_t seq_length,
                                       std::int64_t num_samples) {
  std::vector<std::int32_t> index;
  {
    const auto *lengths = sequence_lengths.data(), *order = sequence_order.data();
    const auto num_sequences = sequence_lengths.size(), order_size = sequence_order.size();
    const py::gil_scoped_release release;
    index = build_sample_index(lengths, num_sequences, order, order_size, seq_length, num_samples);
  }
  return owned(std::move(index), {static_cast<py::ssize_t>(num_samples + 1), 2});
}

py::array_t<std::int64_t> permuted(const Array<std::int64_t>& indices, std::int64_t size, std::uint64_t key) {
  py::array_t<std::int64_t> out(indices.size());
  const auto* in = indices.data();
  auto* result = out.mutable_data();
  const auto count = indices.size();
  const py::gil_scoped_release release;
  const Permutation permutation(static_cast<std::uint64_t>(size), key);
  for (py::ssize_t i = 0; i < count; ++i) {
    result[i] = static_cast<std::int64_t>(permutation(static_cast<std::uint64_t>(in[i])));
  }
  return out;
}

void require_pairs(const Array<std::int32_t>& source_ids, const Array<std::int64_t>& sample_ids) {
  require_argument(source_ids.ndim() == 1 && sample_ids.ndim() == 1 && source_ids.size() == sample_ids.size(),
                   "source_ids and sample_ids are one-dimensional and of one size");
}

void prefetch(const SampleGather& samples, const Array<std::int32_t>& source_ids,
              const Array<std::int64_t>& sample_ids) {
  require_pairs(source_ids, sample_ids);
  const auto* sources = source_ids.data();
  const auto* ids = sample_ids.data();
  const auto count = source_ids.size();
  const py::gil_scoped_release release;
  samples.prefetch(sources, ids, count);
}

py::tuple gather(const SampleGather& samples, const Array<std::int32_t>& source_ids,
                 const Array<std::int64_t>& sample_ids) {
  require_pairs(source_ids, sample_ids);
  const auto count = source_ids.size();
  py::array rows(dtype_of(samples.token_type()),
                 std::vector<py::ssize_t>{count, static_cast<py::ssize_t>(samples.row_tokens())});
  py::array_t<std::int32_t> valid(count);
  {
    const auto* sources = source_ids.data();
    const auto* ids = sample_ids.data();
    auto* bytes = static_cast<std::byte*>(rows.mutable_data());
    auto* counts = valid.mutable_data();
    const py::gil_scoped_release release;
    samples.gather(sources, ids, count, bytes, counts);
  }
  return py::make_tuple(rows, valid);
}

void bind_samples(py::module_& module) {
  module.def("build_sample_index", &sample_index, py::arg("sequence_lengths"), py::arg("sequence_order"),
             py::arg("seq_length"), py::arg("num_samples"));
  module.def("permuted", &permuted, py::arg("indices"), py::arg("size"), py::arg("key"));

  py::class_<SampleSource, std::shared_ptr<SampleSource>>(module, "SampleSource");
  py::class_<WindowSamples, SampleSource, std::shared_ptr<WindowSamples>>(module, "WindowSamples")
      .def(py::init<std::shared_ptr<const IndexedReader>, std::int64_t, std::int64_t, std::int64_t,
                    std::optional<std::uint64_t>>(),
           py::arg("reader"), py::arg("first_sequence"), py::arg("end_sequence"), py::arg("seq_length"),
           py::arg("key"))
      .def_property_readonly("num_tokens", &WindowSamples::num_tokens)
      .def_property_readonly("samples_per_epoch", &WindowSamples::samples_per_epoch);
  py::class_<MegatronSamples, SampleSource, std::shared_ptr<MegatronSamples>>(module, "MegatronSamples")
      .def(py::init([](std::shared_ptr<const IndexedReader> reader, const Array<std::int32_t>& sequence_order,
                       const Array<std::int32_t>& index, const Array<std::uint32_t>& shuffle_index,
                       std::int64_t seq_length) {
             return std::make_shared<MegatronSamples>(std::move(reader), copied(sequence_order),
                                                      copied(index), copied(shuffle_index), seq_length);
           }),
           py::arg("reader"), py::arg("sequence_order"), py::arg("sample_index"), py::arg("shuffle_index"),
           py::arg("seq_length"))
      .def_property_readonly("num_samples", &MegatronSamples::num_samples);
  py::class_<SampleGather>(module, "SampleGather")
      .def(py::init([](const std::vector<std::shared_ptr<SampleSource>>& sources) {
             return std::make_unique<SampleGather>(
                 std::vector<std::shared_ptr<const SampleSource>>(sources.begin(), sources.end()));
           }),
           py::arg("sources"))
      .def_property_readonly("dtype",
                             [](const SampleGather& samples) { return dtype_of(samples.token_type()); })
      .def("prefetch", &prefetch, py::arg("source_ids"), py::arg("sample_ids"))
      .def("gather", &gather, py::arg("source_ids"), py::arg("sample_ids"));
}

py::tuple draw(Blend& blend, std::int64_t count) {
  require_argument(count >= 0, "a negative number of draws");
  py::array_t<std::int32_t> dataset_ids(count);
  py::array_t<std::int64_t> sample_ids(count);
  {
    auto* datasets = dataset_ids.mutable_data();
    auto* samples = sample_ids.mutable_data();
    const py::gil_scoped_release release;
    blend.draw(count, datasets, samples);
  }
  return py::make_tuple(dataset_ids, sample_ids);
}

void bind_blend(py::module_& module) {
  module.def("blend_instruction_sets", [] {
    std::vector<std::string> names;
    for (const auto* scan : blend_scans()) names.emplace_back(scan->name);
    return names;
  });
  py::class_<Blend>(module, "Blend")
      .def(py::init([](const Array<double>& weights, const std::string& instruction_set) {
             return Blend(copied(weights), instruction_set);
           }),
           py::arg("weights"), py::arg("instruction_set") = "")
      .def_property_readonly("position", &Blend::position)
      .def("counts",
           [](const Blend& blend) {
             py::array_t<std::int64_t> out(blend.num_datasets());
             for (std::int64_t i = 0; i < blend.num_datasets(); ++i) out.mutable_at(i) = blend.count(i);
             return out;
           })
      .def("draw", &draw, py::arg("count"))
      .def("seek", &Blend::seek, py::arg("position"), ReleaseGil())
      .def(
          "restore",
          [](Blend& blend, std::int64_t position, const Array<std::int64_t>& counts) {
            blend.restore(position, copied(counts));
          },
          py::arg("position"), py::arg("counts"));
}

}  // namespace
}  // namespace megatron_ext

PYBIND11_MODULE(_C, module) {
  module.doc() = "Algorithms of megatron_ext.data in C++.";
  py::register_local_exception_translator(&megatron_ext::translate_exceptions);
  megatron_ext::bind_indexed(module);
  megatron_ext::bind_samples(module);
  megatron_ext::bind_blend(module);
  megatron_ext::bind_tokenizer(module);
  megatron_ext::bind_text(module);
  megatron_ext::bind_duplicates(module);
  megatron_ext::bind_quality(module);
}
