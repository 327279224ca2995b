// What the C++ tests share. Each test_*.cpp is a program of its own: `make test-cpp` builds them with
// AddressSanitizer and UBSan and runs them; one that fails says where and ends with 1.
#pragma once

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "indexed_format.h"

#define CHECK(condition) \
  ((condition) ? (void)0 : ::megatron_ext::testing::fail(#condition, __FILE__, __LINE__))

namespace megatron_ext::testing {

[[noreturn]] inline void fail(const char* what, const char* file, int line) {
  std::fprintf(stderr, "%s:%d: not so: %s\n", file, line, what);
  std::exit(1);
}

// Whether the action throws an Error whose text contains `text`.
template <typename Error, typename Action>
bool throws(Action action, const std::string& text = "") {
  try {
    action();
  } catch (const Error& error) {
    return std::string(error.what()).find(text) != std::string::npos;
  }
  return false;
}

// A folder that lives as long as the object.
class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "megatron_ext_XXXXXX").string();
    CHECK(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  std::string file(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

inline void write_file(const std::string& path, const std::string& content) {
  std::ofstream(path, std::ios::binary | std::ios::trunc)
      .write(content.data(), static_cast<std::streamsize>(content.size()));
}

inline std::string read_file(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

template <typename T>
void append(std::string& out, const T& value) {
  std::array<char, sizeof(T)> bytes;
  std::memcpy(bytes.data(), &value, sizeof(T));
  out.append(bytes.data(), bytes.size());
}

// The bytes of an .idx that says just this.
struct Index {
  std::vector<std::int32_t> lengths;
  std::vector<std::int64_t> offsets;
  std::vector<std::int64_t> documents;
  TokenType type = TokenType::kUint16;

  // One sequence per document, as a preprocessing writes it.
  static Index of(std::vector<std::int32_t> lengths, TokenType type = TokenType::kUint16) {
    Index index{std::move(lengths), {}, {0}, type};
    std::int64_t offset = 0;
    for (const auto length : index.lengths) {
      index.offsets.push_back(offset);
      offset += length * static_cast<std::int64_t>(item_size(type));
      index.documents.push_back(static_cast<std::int64_t>(index.offsets.size()));
    }
    return index;
  }

  std::string bytes() const {
    std::string out(kMagic.data(), kMagic.size());
    append(out, kVersion);
    append(out, type);
    append(out, static_cast<std::uint64_t>(lengths.size()));
    append(out, static_cast<std::uint64_t>(documents.size()));
    for (const auto length : lengths) append(out, length);
    for (const auto offset : offsets) append(out, offset);
    for (const auto document : documents) append(out, document);
    return out;
  }
};

// Tokens 1, 2, 3, … of two bytes.
inline std::string counting_tokens(std::int64_t count) {
  std::string out;
  for (std::int64_t i = 1; i <= count; ++i) append(out, static_cast<std::uint16_t>(i));
  return out;
}

}  // namespace megatron_ext::testing
