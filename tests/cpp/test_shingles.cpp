#include <cstring>
#include <memory>
#include <numeric>
#include <string_view>

#include "shingles.h"
#include "testing.h"

namespace megatron_ext::testing {
namespace {

// Every character stays itself, but for a blank, a digit, a hyphen, and Z, which becomes "ab".
Folding some_folding() {
  std::vector<std::uint32_t> folds(0x110000);
  std::iota(folds.begin(), folds.end(), 0u);
  folds[' '] = Folding::kSeparator;
  for (char digit = '0'; digit <= '9'; ++digit) folds[static_cast<unsigned char>(digit)] = Folding::kDigit;
  folds['-'] = Folding::kDropped;
  folds['Z'] = Folding::kExpansion + 16 * 1 + 2;
  return Folding(std::move(folds), {'x', 'a', 'b'});
}

std::vector<std::uint64_t> shingles(std::string_view text, ShingleUnit unit, std::size_t length) {
  // Alone in an allocation of its size, so that AddressSanitizer sees a read behind it.
  const std::unique_ptr<char[]> bytes(new char[text.size()]);
  std::memcpy(bytes.get(), text.data(), text.size());
  std::vector<std::uint64_t> hashes;
  some_folding().append_shingles({bytes.get(), text.size()}, unit, length, hashes);
  return hashes;
}

void a_shingle_is_a_run_of_units() {
  const auto words = shingles("  one two three one two ", ShingleUnit::kWord, 2);
  CHECK(words.size() == 4 && words[0] == words[3] && words[0] != words[1]);
  CHECK(shingles("one", ShingleUnit::kWord, 2).empty() && shingles("", ShingleUnit::kCharacter, 1).empty());
  const auto characters = shingles("ab a b", ShingleUnit::kCharacter, 2);
  CHECK(characters.size() == 3 && characters[0] == characters[2] && characters[0] != characters[1]);
}

void folded_characters_are_equal() {
  CHECK(shingles("Z1 c", ShingleUnit::kWord, 2) == shingles("a-b234 c-", ShingleUnit::kWord, 2));
  CHECK(shingles("Z1", ShingleUnit::kCharacter, 3) == shingles("a b99", ShingleUnit::kCharacter, 3));
  CHECK(shingles("1 2", ShingleUnit::kCharacter, 1).size() == 2);
}

void bytes_that_are_no_text_are_refused() {
  for (const std::string_view bytes : {"\xC3", "a\xE4\xB8", "\xF0\x9F\x98", "\xED\xA0\x80", "\xFF", "\x80"}) {
    CHECK(throws<std::invalid_argument>([&] { shingles(bytes, ShingleUnit::kWord, 1); }, "not UTF-8"));
  }
}

void a_table_that_points_outside_is_refused() {
  for (const std::uint32_t fold : {Folding::kDigit + 1, Folding::kExpansion + 16 * 2 + 2, 0xFFFFFFFFu}) {
    std::vector<std::uint32_t> folds(0x110000);
    folds['a'] = fold;
    CHECK(throws<std::invalid_argument>([&] { Folding(folds, {1, 2, 3}); }, "there is no fold"));
  }
  CHECK(throws<std::invalid_argument>([] { Folding({1, 2}, {}); }, "not one a code point"));
}

}  // namespace
}  // namespace megatron_ext::testing

int main() {
  megatron_ext::testing::a_shingle_is_a_run_of_units();
  megatron_ext::testing::folded_characters_are_equal();
  megatron_ext::testing::bytes_that_are_no_text_are_refused();
  megatron_ext::testing::a_table_that_points_outside_is_refused();
}
