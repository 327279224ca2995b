#include <cstring>
#include <memory>
#include <random>
#include <stdexcept>
#include <string_view>

#include "bpe_encoder.h"
#include "bpe_model.h"
#include "sentencepiece_model.h"
#include "testing.h"

namespace megatron_ext::testing {
namespace {

// One field of a protocol buffer: number, and bytes with their length, or a number of one byte.
std::string field(int number, const std::string& bytes) {
  CHECK(bytes.size() < 128);
  return std::string{static_cast<char>(number << 3 | 2), static_cast<char>(bytes.size())} + bytes;
}
std::string field(int number, int value) {
  return {static_cast<char>(number << 3), static_cast<char>(value)};
}

std::string piece(const std::string& text, float score, PieceType type = PieceType::kNormal) {
  std::string with_score = field(1, text) + std::string(1, static_cast<char>(2 << 3 | 5));
  append(with_score, score);
  return field(1, with_score + field(3, static_cast<int>(type)));
}

// Ids 0 to 2 are <unk>, <s>, </s>, then the bytes, then "a", "b", "ab", "abab", a user-defined piece, and a
// piece with a character that is none.
constexpr std::uint32_t kFirstPiece = 3 + 256;
std::string serialized_model() {
  std::string model = piece("<unk>", 0, PieceType::kUnknown) + piece("<s>", 0, PieceType::kControl) +
                      piece("</s>", 0, PieceType::kControl);
  for (int byte = 0; byte < 256; ++byte) {
    char text[8];
    std::snprintf(text, sizeof text, "<0x%02X>", byte);
    model += piece(text, 0, PieceType::kByte);
  }
  model += piece("a", -3) + piece("b", -4) + piece("ab", 0) + piece("abab", -1);
  model += piece("[X]", 0, PieceType::kUserDefined) + piece("b\u00e9", -2);
  // trainer_spec: model_type BPE, byte_fallback; normalizer_spec: no dummy prefix, no removed spaces
  model += field(2, field(3, 2) + std::string("\x98\x02\x01", 3));
  return model + field(3, field(3, 0) + field(4, 0) + field(5, 1));
}

std::vector<std::uint32_t> ids_of(BpeEncoder& encoder, std::string_view text) {
  const std::unique_ptr<char[]> alone(new char[text.size()]);  // a read behind it is seen
  std::memcpy(alone.get(), text.data(), text.size());
  std::vector<std::uint32_t> ids;
  encoder.encode({alone.get(), text.size()}, ids);
  return ids;
}

void merges_bytes_and_frozen_pieces() {
  const std::string bytes = serialized_model();
  BpeEncoder encoder(std::make_shared<BpeModel>(parse_sentencepiece_model(bytes)));
  using Ids = std::vector<std::uint32_t>;
  CHECK(ids_of(encoder, "").empty());
  CHECK((ids_of(encoder, "aababab") == Ids{kFirstPiece, kFirstPiece + 3, kFirstPiece + 2}));
  CHECK((ids_of(encoder, "[X]") == Ids{kFirstPiece + 4}));
  CHECK((ids_of(encoder, "<s>") == Ids{3 + '<', 3 + 's', 3 + '>'}));
  CHECK((ids_of(encoder, "b\u00e9") == Ids{kFirstPiece + 5}));
  CHECK((ids_of(encoder, "\u00e9") == Ids{3 + 0xC3, 3 + 0xA9}));
  CHECK((ids_of(encoder, "\x80") == Ids{3 + 0xEF, 3 + 0xBF, 3 + 0xBD}));
}

// Against a fresh encoder for each text: whatever was remembered, ids are the same. Seed and texts are fixed.
void memory_changes_no_ids() {
  static constexpr std::string_view kParts[] = {
      "a",    "b",        "ab", "[X]",    "[X", " ", "\u00e9", "\x80", std::string_view("\0", 1),
      "\xF0", "\u2581\n", "1",  "b\u00e9"};
  const std::string bytes = serialized_model();
  const auto model = std::make_shared<BpeModel>(parse_sentencepiece_model(bytes));
  BpeEncoder remembers(model);
  std::mt19937 random(1);
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    for (auto parts = random() % (round % 100 ? 40 : 4000); parts > 0; --parts) {
      text += kParts[random() % std::size(kParts)];
    }
    BpeEncoder fresh(model);
    CHECK(ids_of(remembers, text) == ids_of(fresh, text));
  }
}

void damaged_models_are_refused_or_work() {
  const std::string right = serialized_model();
  std::mt19937 random(1);
  int refused = 0, usable = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string bytes = right;
    for (auto times = 1 + random() % 3; times > 0; --times) {
      const auto place = random() % bytes.size();
      random() % 4 ? void(bytes[place] = static_cast<char>(random())) : bytes.resize(place + 1);
    }
    const std::unique_ptr<char[]> alone(new char[bytes.size()]);
    std::memcpy(alone.get(), bytes.data(), bytes.size());
    try {
      BpeEncoder encoder(std::make_shared<BpeModel>(parse_sentencepiece_model({alone.get(), bytes.size()})));
      ids_of(encoder, "abab [X] b\u00e9 \x80");
      ++usable;
    } catch (const std::invalid_argument&) {
      ++refused;
    }
  }
  CHECK(refused > 100 && usable > 100);
}

}  // namespace
}  // namespace megatron_ext::testing

int main() {
  megatron_ext::testing::merges_bytes_and_frozen_pieces();
  megatron_ext::testing::memory_changes_no_ids();
  megatron_ext::testing::damaged_models_are_refused_or_work();
}
