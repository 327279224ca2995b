// The part of a SentencePiece model file that BPE needs. Format: sentencepiece_model.proto, protocol
// buffers 2.
#pragma once

#include <string_view>
#include <vector>

namespace megatron_ext {

enum class PieceType { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

struct SentencePiece {
  std::string_view text;
  float score = 0;
  PieceType type = PieceType::kNormal;
};

// Where a file says nothing, these are the format's defaults.
struct SentencePieceModel {
  enum class Algorithm { kUnigram = 1, kBpe = 2, kWord = 3, kChar = 4 };

  std::vector<SentencePiece> pieces;  // the index is the id
  Algorithm algorithm = Algorithm::kUnigram;
  bool byte_fallback = false;
  bool whitespace_as_suffix = false;
  bool has_character_map = false;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
};

// Views into `serialized`. Throws std::invalid_argument where that is no such file.
SentencePieceModel parse_sentencepiece_model(std::string_view serialized);

// Throws std::invalid_argument, with the reason, where ids equal to sentencepiece's cannot be promised.
void require_exact_bpe(const SentencePieceModel& model);

}  // namespace megatron_ext
