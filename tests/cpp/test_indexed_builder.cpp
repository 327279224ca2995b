#include <fcntl.h>
#include <unistd.h>

#include <stdexcept>
#include <system_error>

#include "indexed_builder.h"
#include "testing.h"

namespace megatron_ext::testing {
namespace {

int create(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_CREAT | O_RDWR | O_TRUNC, 0600);
  CHECK(descriptor >= 0);
  return descriptor;
}

const std::byte* bytes(const std::string& text) { return reinterpret_cast<const std::byte*>(text.data()); }

void files_are_as_the_format_says() {
  const Folder folder;
  const int bin = create(folder.file("set.bin")), idx = create(folder.file("set.idx"));
  const std::string tokens = counting_tokens(7);
  const std::int64_t first[] = {0, 3}, second[] = {4, 0};
  IndexedBuilder builder(bin, idx, TokenType::kUint16);
  builder.add_documents(bytes(tokens), 3, first, 2);
  builder.add_documents(bytes(tokens) + 6, 4, second, 2);
  CHECK(builder.num_documents() == 4 && builder.num_tokens() == 7);
  builder.finish();
  CHECK(throws<std::invalid_argument>([&] { builder.finish(); }, "already finished"));
  CHECK(throws<std::invalid_argument>([&] { builder.add_documents(bytes(tokens), 0, first, 0); }));
  ::close(bin);
  ::close(idx);
  CHECK(read_file(folder.file("set.bin")) == tokens);
  CHECK(read_file(folder.file("set.idx")) == Index::of({0, 3, 4, 0}).bytes());
}

void lengths_that_do_not_fit_write_nothing() {
  const Folder folder;
  const int bin = create(folder.file("set.bin")), idx = create(folder.file("set.idx"));
  const std::string tokens = counting_tokens(3);
  IndexedBuilder builder(bin, idx, TokenType::kUint16);
  for (const std::vector<std::int64_t>& lengths : {std::vector<std::int64_t>{-1, 4},
                                                   {2},
                                                   {4},
                                                   {std::int64_t{1} << 31},
                                                   {INT64_MAX, INT64_MAX},
                                                   {INT64_MIN}}) {
    CHECK(throws<std::invalid_argument>([&] {
      builder.add_documents(bytes(tokens), 3, lengths.data(), static_cast<std::int64_t>(lengths.size()));
    }));
  }
  ::close(bin);
  ::close(idx);
  CHECK(read_file(folder.file("set.bin")).empty());
  CHECK(throws<std::invalid_argument>([] { IndexedBuilder(0, 0, TokenType::kFloat32); }, "dtype code 7"));
}

void a_file_that_cannot_be_written_is_a_system_error() {
  const std::string tokens = counting_tokens(1);
  const std::int64_t length = 1;
  const int closed = -1;
  IndexedBuilder builder(closed, closed, TokenType::kUint16);
  CHECK(throws<std::system_error>([&] { builder.add_documents(bytes(tokens), 1, &length, 1); }));
}

}  // namespace
}  // namespace megatron_ext::testing

int main() {
  megatron_ext::testing::files_are_as_the_format_says();
  megatron_ext::testing::lengths_that_do_not_fit_write_nothing();
  megatron_ext::testing::a_file_that_cannot_be_written_is_a_system_error();
}
