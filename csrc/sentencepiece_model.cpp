#include "sentencepiece_model.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <unordered_set>

#include "characters.h"
#include "checks.h"
#include "utf8.h"

namespace megatron_ext {
namespace {

// Reads one message field by field: https://protobuf.dev/programming-guides/encoding
class MessageReader {
 public:
  enum WireType { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

  explicit MessageReader(std::string_view message) : rest_(message) {}

  // Goes to the next field; false at the end.
  bool next() {
    if (rest_.empty()) return false;
    const std::uint64_t key = varint();
    number_ = key >> 3;
    wire_type_ = key & 7;
    switch (wire_type_) {
      case kVarint:
        number_value_ = varint();
        break;
      case kFixed64:
        take(8);
        break;
      case kBytes:
        bytes_ = take(varint());
        break;
      case kFixed32:
        bytes_ = take(4);
        break;
      default:
        throw std::invalid_argument("holds a field of an unknown kind");
    }
    return true;
  }

  bool is(std::uint64_t number, WireType wire_type) const {
    return number_ == number && wire_type_ == wire_type;
  }
  std::string_view bytes() const { return bytes_; }
  bool flag() const { return number_value_ != 0; }
  float float32() const {
    float value;
    std::memcpy(&value, bytes_.data(), sizeof value);
    return value;
  }

  // As protocol buffers do with a value that the enumeration lacks, leaves `value` alone then.
  template <typename Enum>
  void read_enum(Enum last, Enum& value) const {
    const auto number = static_cast<std::int32_t>(number_value_);
    if (number >= 1 && number <= static_cast<std::int32_t>(last)) value = static_cast<Enum>(number);
  }

 private:
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<std::uint8_t>(take(1)[0]);
      value |= std::uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return value;
    }
    throw std::invalid_argument("holds a number that does not end");
  }

  std::string_view take(std::uint64_t size) {
    require_argument(size <= rest_.size(), "is cut short");
    const auto taken = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return taken;
  }

  std::string_view rest_;
  std::string_view bytes_;
  std::uint64_t number_ = 0;
  std::uint64_t wire_type_ = 0;
  std::uint64_t number_value_ = 0;
};

SentencePiece parse_piece(std::string_view message) {
  SentencePiece piece;
  for (MessageReader field(message); field.next();) {
    if (field.is(1, MessageReader::kBytes)) piece.text = field.bytes();
    if (field.is(2, MessageReader::kFixed32)) piece.score = field.float32();
    if (field.is(3, MessageReader::kVarint)) field.read_enum(PieceType::kByte, piece.type);
  }
  return piece;
}

void parse_trainer_spec(std::string_view message, SentencePieceModel& model) {
  for (MessageReader field(message); field.next();) {
    if (field.is(3, MessageReader::kVarint)) {
      field.read_enum(SentencePieceModel::Algorithm::kChar, model.algorithm);
    }
    if (field.is(24, MessageReader::kVarint)) model.whitespace_as_suffix = field.flag();
    if (field.is(35, MessageReader::kVarint)) model.byte_fallback = field.flag();
  }
}

void parse_normalizer_spec(std::string_view message, SentencePieceModel& model) {
  for (MessageReader field(message); field.next();) {
    if (field.is(2, MessageReader::kBytes)) model.has_character_map = !field.bytes().empty();
    if (field.is(3, MessageReader::kVarint)) model.add_dummy_prefix = field.flag();
    if (field.is(4, MessageReader::kVarint)) model.remove_extra_whitespaces = field.flag();
    if (field.is(5, MessageReader::kVarint)) model.escape_whitespaces = field.flag();
  }
}

const char* name_of(SentencePieceModel::Algorithm algorithm) {
  switch (algorithm) {
    case SentencePieceModel::Algorithm::kUnigram:
      return "unigram";
    case SentencePieceModel::Algorithm::kBpe:
      return "BPE";
    case SentencePieceModel::Algorithm::kWord:
      return "word";
    case SentencePieceModel::Algorithm::kChar:
      break;
  }
  return "character";
}

// Splits of a piece are tried one by one, which takes time with its square; trainers stop at 16 characters.
constexpr std::size_t kLongestPiece = 1024;

void require_exact_piece(const SentencePiece& piece) {
  const auto& text = piece.text;
  require_argument(!text.empty() && is_utf8(text), "has a piece that is empty or not UTF-8");
  require_argument(text.size() <= kLongestPiece, "has a piece of more than ", kLongestPiece, " bytes");
  require_argument(!std::isnan(piece.score), "has a piece whose score is not a number: ", text);
  require_argument(text.find('\0') == std::string_view::npos, "has a piece with a NUL in it");
  // sentencepiece takes a control piece for the character in a text, and then fails; what an unused piece
  // becomes depends on its release.
  const bool one_character = text.size() == utf8_length(static_cast<std::uint8_t>(text[0]));
  require_argument(!one_character || (piece.type != PieceType::kControl && piece.type != PieceType::kUnused),
                   "has a control or unused piece of one character: ", text);
}

}  // namespace

SentencePieceModel parse_sentencepiece_model(std::string_view serialized) {
  SentencePieceModel model;
  for (MessageReader field(serialized); field.next();) {
    if (field.is(1, MessageReader::kBytes)) model.pieces.push_back(parse_piece(field.bytes()));
    if (field.is(2, MessageReader::kBytes)) parse_trainer_spec(field.bytes(), model);
    if (field.is(3, MessageReader::kBytes)) parse_normalizer_spec(field.bytes(), model);
  }
  return model;
}

void require_exact_bpe(const SentencePieceModel& model) {
  require_argument(model.algorithm == SentencePieceModel::Algorithm::kBpe, "uses the ",
                   name_of(model.algorithm), " algorithm");
  require_argument(!model.has_character_map, "normalises text with a character map");
  require_argument(!model.remove_extra_whitespaces, "removes extra white space");
  require_argument(model.escape_whitespaces, "does not escape white space");
  require_argument(!model.whitespace_as_suffix, "puts white space at the end of a word");
  require_argument(model.byte_fallback, "has no byte fallback");
  std::unordered_set<std::string_view> seen;
  for (const auto& piece : model.pieces) {
    require_exact_piece(piece);
    require_argument(seen.insert(piece.text).second, "has a piece twice: ", piece.text);
  }
}

}  // namespace megatron_ext
