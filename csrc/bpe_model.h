// The tables of a SentencePiece BPE model. Immutable: threads share one.
//
// sentencepiece writes U+2581 for a space. Here ' ' stands for both, in pieces and in text. sentencepiece
// starts from one symbol a character (a user-defined piece is one symbol from the start and stays so), and
// merges two neighbours as long as any two make a piece, the best score first, the leftmost among equals.
// Symbols are numbers here: the id of the piece, or kCharacter + code point for a character that is no piece;
// it may be part of one, and becomes its bytes where no merge takes it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "characters.h"
#include "flat_map.h"
#include "sentencepiece_model.h"

namespace megatron_ext {

using Symbol = std::uint32_t;

// What two neighbours become.
struct Merge {
  static constexpr std::uint32_t kNever = ~std::uint32_t{0};

  std::uint32_t rank = kNever;  // by score, not by id: lower goes first, equal scores have equal ranks
  Symbol symbol = 0;
};

// The character at `text`, which must be valid and moves past it.
inline char32_t next_character(const std::uint8_t*& text) {
  const auto length = utf8_length(*text);
  const char32_t character = decode_utf8(text, length);
  text += length;
  return character == 0x2581 ? U' ' : character;
}

class BpeModel {
 public:
  static constexpr Symbol kCharacter = Symbol{1} << 31;

  // Throws std::invalid_argument, with the reason, where ids equal to sentencepiece's cannot be promised.
  explicit BpeModel(const SentencePieceModel& model);

  bool add_dummy_prefix() const { return add_dummy_prefix_; }

  // Whether some piece holds `left` and `right` side by side. Where none does, the text before and the text
  // after are encoded apart. May say yes in error, which costs time only.
  bool joinable(char32_t left, char32_t right) const {
    const auto hash = hash_of_pair(left, right) >> pair_shift_;
    return pairs_[hash / 64] >> (hash % 64) & 1;
  }
  // The same, exactly, below U+0080.
  bool joinable_ascii(std::uint8_t left, std::uint8_t right) const {
    return ascii_pairs_[left * std::size_t{2} + right / 64] >> (right % 64) & 1;
  }

  // The symbol with which merging starts at `text`, which moves past it. The text is valid UTF-8, and its
  // `end` is not between two characters that are joinable().
  Symbol next_symbol(const std::uint8_t*& text, const std::uint8_t* end) const {
    Symbol symbol;
    const bool user_defined = !trie_.empty() && match_user_defined(text, end, symbol);
    return user_defined ? symbol : symbol_of(next_character(text));
  }

  Merge merge(Symbol left, Symbol right) const {
    const Merge* found = merges_.find(std::uint64_t{left} << 32 | right);
    return found ? *found : Merge{};
  }

  // Appends the ids of a symbol that no merge took: one, its bytes, or what an unused piece was made of.
  void append_ids(Symbol symbol, std::vector<std::uint32_t>& ids) const;

 private:
  struct Split {
    Symbol left, right;
  };
  using SymbolOfText = std::unordered_map<std::string_view, Symbol>;

  static std::uint64_t hash_of_pair(char32_t left, char32_t right) {
    return (std::uint64_t{left} << 32 | right) * 0x9E3779B97F4A7C15u;
  }

  void collect_pairs(const SentencePieceModel& model);
  SymbolOfText collect_symbols(const SentencePieceModel& model);
  void collect_merges(const SentencePieceModel& model, const SymbolOfText& symbols);
  void collect_unused(const SentencePieceModel& model);
  void collect_byte_ids(const SentencePieceModel& model);
  void add_user_defined(std::string_view text, Symbol symbol);
  Symbol symbol_of(char32_t character) const;
  // The longest user-defined piece that starts at `text`, which then moves past it.
  bool match_user_defined(const std::uint8_t*& text, const std::uint8_t* end, Symbol& symbol) const;

  bool add_dummy_prefix_;
  std::array<std::uint64_t, 2 * 128> ascii_pairs_{};  // a bit each
  std::vector<std::uint64_t> pairs_;                  // a bit for each value of the shifted hash
  int pair_shift_ = 0;
  FlatMap<Symbol> characters_;        // code point to the piece that it is
  FlatMap<Merge> merges_;             // left << 32 | right
  FlatMap<Split> unused_;             // symbol of an unused piece to its two parts
  FlatMap<std::uint32_t> trie_;       // of user-defined pieces: node << 32 | character to node; 0 is the root
  std::vector<Symbol> trie_symbols_;  // by node: the piece that ends there, or kCharacter
  std::array<std::uint32_t, 256> byte_ids_{};
};

}  // namespace megatron_ext
