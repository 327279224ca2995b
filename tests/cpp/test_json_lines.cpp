#include <cstring>
#include <memory>
#include <random>
#include <string_view>

#include "byte_encoder.h"
#include "json_lines.h"
#include "testing.h"
#include "utf8.h"

namespace megatron_ext::testing {
namespace {

const std::vector<std::string> kKeys = {"text", "id"};

// The bytes alone in an allocation of their size, so that AddressSanitizer sees a read behind them.
class Block {
 public:
  explicit Block(const std::string& bytes) : size_(bytes.size()), data_(new char[bytes.size()]) {
    std::memcpy(data_.get(), bytes.data(), size_);
  }
  std::string_view view() const { return {data_.get(), size_}; }

 private:
  std::size_t size_;
  std::unique_ptr<char[]> data_;
};

void texts_are_found_and_unescaped() {
  const Block block(
      "{\"n\": [1, {\"text\": \"inner\"}], \"id\": \"\", \"text\": \"a\\n\\u00e9\\ud83d\\ude00\"}\n"
      " \t\n"
      "{\"text\": \"\\ud83d!\", \"id\": \"7\"}");
  const Texts texts = scan_json_lines(block.view(), kKeys);
  CHECK(texts.num_rows() == 3 && texts.odd_rows().empty());
  const auto found = texts.of_key(0);
  CHECK(found.size() == 2 && found[0] == "a\n\u00e9\U0001F600" && found[1] == "\uFFFD!");
}

void what_is_not_plain_is_odd() {
  const std::string lines[] = {
      "{\"text\": \"a\"}",            // a key is missing
      "{\"text\": 1, \"id\": \"\"}",  // no string
      "{\"text\": \"a\", \"text\": \"b\", \"id\": \"\"}",
      "{\"text\": \"\x80\", \"id\": \"\"}",  // not UTF-8
      "{\"text\": \"a\", \"id\": \"\"} {}",
      "{\"text\": \"a\", \"id\": \"\", \"n\": NaN}",
      "{\"text\": \"a\", \"id\": \"\\u12\"}",
      "{\"text\": \"a\", \"id\": \"",
      "[\"text\"]",
      "{\"id\": \"\", \"text\": \"a\", \"deep\": " + std::string(100000, '['),
  };
  for (const auto& line : lines) {
    const Block block(line);
    const Texts texts = scan_json_lines(block.view(), kKeys);
    CHECK(texts.num_rows() == 1 && texts.odd_rows() == std::vector<std::size_t>{0});
    CHECK(throws<std::invalid_argument>([&] { texts.of_key(0); }));
  }
}

// Damages a block of good lines in a few places. The generator is of fixed seed: every run tests the same.
std::string damaged(std::mt19937& random) {
  static constexpr std::string_view kInserted = "\"\\{}[]:,\n\x80\xED\xF4\x01u";
  std::string bytes =
      "{\"text\": \"plain\", \"id\": \"\\u0041\\ud83d\\ude00\"}\r\n"
      "{\"a\": [1.5e-3, true, null, {\"b\": \"\\\"\"}], \"id\": \"\xE6\x97\xA5\", \"t\\u0065xt\": "
      "\"x\\ty\"}\n";
  const auto below = [&](std::size_t bound) { return random() % bound; };
  for (auto times = below(4); times > 0 && !bytes.empty(); --times) {
    switch (below(4)) {
      case 0:
        bytes[below(bytes.size())] = static_cast<char>(random());
        break;
      case 1:
        bytes.erase(below(bytes.size()), 1 + below(5));
        break;
      case 2:
        bytes.insert(below(bytes.size()), 1, kInserted[below(kInserted.size())]);
        break;
      default:
        bytes.resize(below(bytes.size()));
    }
  }
  return bytes;
}

void damage_never_leaves_the_block() {
  std::mt19937 random(1);
  ByteEncoder encoder;
  std::size_t documents = 0, odd = 0;
  for (int round = 0; round < 30000; ++round) {
    const Block block(damaged(random));
    Texts texts = scan_json_lines(block.view(), kKeys);
    for (const auto row : texts.odd_rows()) {
      ++odd;
      row % 2 ? texts.drop(row) : texts.replace(row, {"replaced", ""});
    }
    for (std::size_t key = 0; key < kKeys.size(); ++key) {
      for (const auto text : texts.of_key(key)) CHECK(is_utf8(text));
      const auto encoded = texts.encode<std::uint16_t>(encoder, key, std::nullopt, std::uint16_t{7});
      documents += encoded.lengths.size();
    }
  }
  CHECK(documents > 30000 && odd > 3000);  // neither side is there by name only
}

}  // namespace
}  // namespace megatron_ext::testing

int main() {
  megatron_ext::testing::texts_are_found_and_unescaped();
  megatron_ext::testing::what_is_not_plain_is_odd();
  megatron_ext::testing::damage_never_leaves_the_block();
}
