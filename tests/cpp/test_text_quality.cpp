#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include "repetition.h"
#include "testing.h"
#include "text_defects.h"
#include "text_quality.h"

namespace megatron_ext::testing {
namespace {

using Class = CharacterClass;

// Letters, digits, signs and white space of ASCII; é composes, and two ¢ side by side are suspicious.
CharacterClasses some_classes() {
  std::vector<std::uint16_t> classes(0x110000);
  for (char letter = 'a'; letter <= 'z'; ++letter) classes[static_cast<unsigned>(letter)] = Class::kLetter;
  for (char digit = '0'; digit <= '9'; ++digit) classes[static_cast<unsigned>(digit)] = Class::kDigit;
  for (const char sign : {'-', '#', '&', '"', '.'}) classes[static_cast<unsigned>(sign)] = Class::kSymbol;
  for (const char space : {' ', '\n', '\r'}) {
    classes[static_cast<unsigned>(space)] = Class::kSpace | Class::kSeparator;
  }
  classes['.'] |= Class::kSentenceEnd;
  classes['"'] |= Class::kClosing;
  classes['-'] |= Class::kBullet;
  classes['\r'] |= Class::kOddLineEnd;
  classes[1] = Class::kControl;
  classes[0x301] = Class::kComposing;
  classes[0xA2] = Class::kMojibakeSign;
  classes[0xE9] = Class::kLetter | Class::kMojibakeLetter;
  return CharacterClasses(std::move(classes));
}

// Alone in an allocation of its size, so that AddressSanitizer sees a read behind it.
template <typename Action>
auto with_exact(std::string_view text, Action action) {
  const std::unique_ptr<char[]> bytes(new char[text.size()]);
  std::memcpy(bytes.get(), text.data(), text.size());
  return action(std::string_view(bytes.get(), text.size()));
}

TextQuality quality(std::string_view text, std::size_t characters_per_word = 0) {
  return with_exact(text,
                    [&](auto exact) { return quality_of(exact, some_classes(), characters_per_word, 5); });
}

std::int64_t defects(std::string_view text) {
  return with_exact(text, [&](auto exact) { return defects_of(exact, some_classes()).found; });
}

void lines_words_and_paragraphs_are_counted() {
  const auto of = quality("- ab c3.\n\n  said \"no.\"  \nab...\n\nsaid  \"no.\"\nab...\n");
  CHECK(of.lines == 5 && of.paragraphs == 3);
  CHECK(of.duplicate_lines == 2 && of.duplicate_line_characters == 10 + 5 + 1);
  CHECK(of.duplicate_paragraphs == 1 && of.duplicate_paragraph_characters == 11 + 1 + 5);
  CHECK(of.units == 9 && of.letter_words == 8 && of.digits == 1);
  CHECK(of.bullet_lines == 1 && of.ellipsis_lines == 2 && of.sentence_lines == 5 && of.short_lines == 2);
  CHECK(of.ellipses == 2);
}

void nothing_has_no_quality() {
  for (const std::string_view text : {"", " ", "\n\n"}) {
    const auto of = quality(text);
    CHECK(of.units == 0 && of.lines == 0 && of.paragraphs == 0);
    CHECK(of.characters == static_cast<std::int64_t>(text.size()));
  }
}

void repetition_is_counted_in_words_or_characters() {
  std::string phrases;
  for (int i = 0; i < 6; ++i) phrases += "ab cde " + std::string(1, static_cast<char>('p' + i)) + " ";
  const auto words = quality(phrases).repetition;
  CHECK(words.top_characters[0] == 6 * 6 && words.top_characters[1] == 0);
  CHECK(words.duplicate_characters[0] == 0);
  const auto again = quality("a b c d e f a b c d e f a b c d e").repetition;
  CHECK(again.duplicate_characters[0] == 10 && again.duplicate_characters[1] == 6);
  CHECK(quality("abcdefabcdefabcde", 1).repetition.duplicate_characters[0] == 10);
  const auto pairs = quality("xy1xy2xy3xy4", 1).repetition;
  CHECK(pairs.top_characters[0] == 8 && quality("xy1xy2xy3", 1).repetition.top_characters[0] == 0);
}

void an_empty_text_has_no_repetition() {
  const Units units;
  const auto of = repetition_of(units, 3, true);
  CHECK(of.top_characters[0] == 0 && of.duplicate_characters[0] == 0);
}

void defects_are_found() {
  CHECK(defects("ab c.\n\nde") == 0);
  CHECK(defects("") == 0);
  CHECK(defects("a & b") == Defect::kEntity);
  CHECK(defects("a\rb") == Defect::kLineEnd);
  CHECK(defects("a\x01") == Defect::kControl);
  CHECK(defects("e\xCC\x81") == Defect::kComposition);
  CHECK(defects("a\n--\nb") == Defect::kSymbolLine);
  CHECK(defects("a\n\n\nb") == Defect::kBlankLines);
  for (const std::string_view text : {" a", "a ", "\na", "a\n"}) CHECK(defects(text) == Defect::kOuterSpace);
  CHECK(defects("a \nb") == Defect::kLineSpace);
  CHECK(defects("a\xC2\xA2") == 0 && defects("\xC3\xA9\xC3\xA9") == 0);
  CHECK(defects("\xC3\xA9\xC2\xA2") == Defect::kMojibake && defects("\xC2\xA2\xC2\xA2") == Defect::kMojibake);
}

void bytes_that_are_no_text_are_refused() {
  for (const std::string_view bytes : {"\xC3", "a\xE4\xB8", "\xF0\x9F\x98", "\xED\xA0\x80", "\xFF", "\x80"}) {
    CHECK(throws<std::invalid_argument>([&] { quality(bytes); }, "not UTF-8"));
    CHECK(throws<std::invalid_argument>([&] { defects(bytes); }, "not UTF-8"));
  }
  CHECK(throws<std::invalid_argument>([] { CharacterClasses({1, 2}); }, "not one a code point"));
}

}  // namespace
}  // namespace megatron_ext::testing

int main() {
  megatron_ext::testing::lines_words_and_paragraphs_are_counted();
  megatron_ext::testing::nothing_has_no_quality();
  megatron_ext::testing::repetition_is_counted_in_words_or_characters();
  megatron_ext::testing::an_empty_text_has_no_repetition();
  megatron_ext::testing::defects_are_found();
  megatron_ext::testing::bytes_that_are_no_text_are_refused();
}
