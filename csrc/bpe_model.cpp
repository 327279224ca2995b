#include "bpe_model.h"

#include <algorithm>
#include <functional>
#include <string>

#include "checks.h"

namespace megatron_ext {
namespace {

const std::uint8_t* bytes_of(std::string_view text) {
  return reinterpret_cast<const std::uint8_t*>(text.data());
}

std::u32string characters_of(std::string_view text) {
  std::u32string characters;
  for (const auto *position = bytes_of(text), *end = position + text.size(); position < end;) {
    characters += next_character(position);
  }
  return characters;
}

// The best first. The rank of a piece is the first place of its score, so that equal scores have equal ranks.
std::vector<float> sorted_scores(const SentencePieceModel& model) {
  std::vector<float> scores;
  for (const auto& piece : model.pieces) scores.push_back(piece.score);
  std::sort(scores.begin(), scores.end(), std::greater<>());
  return scores;
}

// Control pieces and the like never come from text, nor does a piece with a space that is not escaped.
bool is_reachable(const SentencePiece& piece) {
  const bool has_plain_space = piece.text.find(' ') != std::string_view::npos;
  return !has_plain_space && (piece.type == PieceType::kNormal || piece.type == PieceType::kUnused ||
                              piece.type == PieceType::kUserDefined);
}

}  // namespace

BpeModel::BpeModel(const SentencePieceModel& model) : add_dummy_prefix_(model.add_dummy_prefix) {
  require_exact_bpe(model);
  require_argument(model.pieces.size() < kCharacter, "has too many pieces");
  collect_pairs(model);
  collect_merges(model, collect_symbols(model));
  collect_unused(model);
  collect_byte_ids(model);
}

void BpeModel::collect_pairs(const SentencePieceModel& model) {
  FlatMap<bool> distinct;
  std::vector<Split> found;
  for (const auto& piece : model.pieces) {
    if (!is_reachable(piece)) continue;
    const auto characters = characters_of(piece.text);
    for (std::size_t i = 1; i < characters.size(); ++i) {
      const char32_t left = characters[i - 1], right = characters[i];
      const auto key = std::uint64_t{left} << 32 | right;
      if (distinct.find(key)) continue;
      distinct.insert_or_assign(key, true);
      found.push_back({left, right});
    }
  }
  // 16 bits a pair: one boundary in 16 is taken for joinable in error, and the table stays in the cache.
  int bits = 6;
  while ((std::size_t{1} << bits) < 16 * found.size()) ++bits;
  pair_shift_ = 64 - bits;
  pairs_.assign((std::size_t{1} << bits) / 64, 0);
  for (const auto& [left, right] : found) {
    const auto hash = hash_of_pair(left, right) >> pair_shift_;
    pairs_[hash / 64] |= std::uint64_t{1} << (hash % 64);
    if (left < 128 && right < 128) {
      ascii_pairs_[left * std::size_t{2} + right / 64] |= std::uint64_t{1} << (right % 64);
    }
  }
}

// Symbols that merges are made of or lead to, by their text.
BpeModel::SymbolOfText BpeModel::collect_symbols(const SentencePieceModel& model) {
  SymbolOfText symbols;
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    const auto& piece = model.pieces[id];
    if (!is_reachable(piece)) continue;
    const auto symbol = static_cast<Symbol>(id);
    if (piece.type == PieceType::kUserDefined) {
      add_user_defined(piece.text, symbol);
      continue;
    }
    symbols.emplace(piece.text, symbol);
    if (piece.text.size() == utf8_length(bytes_of(piece.text)[0])) {
      characters_.insert_or_assign(characters_of(piece.text)[0], symbol);
    }
  }
  for (const auto& piece : model.pieces) {
    if (!is_reachable(piece)) continue;
    for (std::size_t i = 0; i < piece.text.size();) {
      const auto character = piece.text.substr(i, utf8_length(bytes_of(piece.text)[i]));
      symbols.emplace(character, symbol_of(characters_of(character)[0]));
      i += character.size();
    }
  }
  return symbols;
}

void BpeModel::collect_merges(const SentencePieceModel& model, const SymbolOfText& symbols) {
  const auto scores = sorted_scores(model);
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    const auto& [text, score, type] = model.pieces[id];
    if (!is_reachable(model.pieces[id]) || type == PieceType::kUserDefined) continue;
    const auto place = std::lower_bound(scores.begin(), scores.end(), score, std::greater<>());
    const Merge merge{static_cast<std::uint32_t>(place - scores.begin()), static_cast<Symbol>(id)};
    for (std::size_t cut = 1; cut < text.size(); ++cut) {
      if (is_trail_byte(bytes_of(text)[cut])) continue;
      const auto left = symbols.find(text.substr(0, cut));
      const auto right = symbols.find(text.substr(cut));
      if (left == symbols.end() || right == symbols.end()) continue;
      merges_.insert_or_assign(std::uint64_t{left->second} << 32 | right->second, merge);
    }
  }
}

// An unused piece takes part in merges; what is left of it in the end is undone, merge by merge. Its last
// merge is always the same: what is around it has no influence as long as nothing crosses its edges.
void BpeModel::collect_unused(const SentencePieceModel& model) {
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    const auto& piece = model.pieces[id];
    if (piece.type != PieceType::kUnused || !is_reachable(piece)) continue;
    std::vector<Symbol> symbols;
    for (const char32_t character : characters_of(piece.text)) symbols.push_back(symbol_of(character));
    while (symbols.size() > 2) {
      Merge best;
      std::size_t place = 0;
      for (std::size_t i = 1; i < symbols.size(); ++i) {
        const Merge candidate = merge(symbols[i - 1], symbols[i]);
        if (candidate.rank < best.rank) best = candidate, place = i;
      }
      if (best.rank == Merge::kNever) break;
      symbols[place - 1] = best.symbol;
      symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(place));
    }
    if (symbols.size() == 2) unused_.insert_or_assign(id, {symbols[0], symbols[1]});
  }
}

void BpeModel::collect_byte_ids(const SentencePieceModel& model) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  std::array<bool, 256> found{};
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    const auto& [text, score, type] = model.pieces[id];
    if (type != PieceType::kByte) continue;
    const bool framed = text.size() == 6 && text.substr(0, 3) == "<0x" && text[5] == '>';
    const auto high = framed ? kDigits.find(text[3]) : std::string_view::npos;
    const auto low = framed ? kDigits.find(text[4]) : std::string_view::npos;
    require_argument(high < 16 && low < 16, "has a byte piece that names no byte: ", text);
    byte_ids_[16 * high + low] = static_cast<std::uint32_t>(id);
    found[16 * high + low] = true;
  }
  require_argument(std::count(found.begin(), found.end(), true) == 256, "has no piece for some of the bytes");
}

void BpeModel::add_user_defined(std::string_view text, Symbol symbol) {
  if (trie_symbols_.empty()) trie_symbols_.push_back(kCharacter);
  std::uint32_t node = 0;
  for (const char32_t character : characters_of(text)) {
    const auto key = std::uint64_t{node} << 32 | character;
    const auto* child = trie_.find(key);
    if (child) {
      node = *child;
      continue;
    }
    node = static_cast<std::uint32_t>(trie_symbols_.size());
    trie_symbols_.push_back(kCharacter);
    trie_.insert_or_assign(key, node);
  }
  trie_symbols_[node] = symbol;
}

Symbol BpeModel::symbol_of(char32_t character) const {
  const Symbol* piece = characters_.find(character);
  return piece ? *piece : kCharacter + character;
}

bool BpeModel::match_user_defined(const std::uint8_t*& text, const std::uint8_t* end, Symbol& symbol) const {
  const std::uint8_t* match_end = nullptr;
  std::uint32_t node = 0;
  for (const auto* position = text; position < end;) {
    const auto* child = trie_.find(std::uint64_t{node} << 32 | next_character(position));
    if (!child) break;
    node = *child;
    if (trie_symbols_[node] == kCharacter) continue;
    symbol = trie_symbols_[node];
    match_end = position;
  }
  if (match_end) text = match_end;
  return match_end != nullptr;
}

void BpeModel::append_ids(Symbol symbol, std::vector<std::uint32_t>& ids) const {
  if (symbol >= kCharacter) {
    const char32_t character = symbol - kCharacter;
    std::uint8_t bytes[4];
    const auto size = encode_utf8(character == U' ' ? U'\u2581' : character, bytes);
    for (std::size_t i = 0; i < size; ++i) ids.push_back(byte_ids_[bytes[i]]);
    return;
  }
  const Split* split = unused_.empty() ? nullptr : unused_.find(symbol);
  if (!split) {
    ids.push_back(symbol);
    return;
  }
  append_ids(split->left, ids);
  append_ids(split->right, ids);
}

}  // namespace megatron_ext
