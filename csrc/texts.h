// Texts of some rows, for each of a few keys, and their ids.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text_encoder.h"

namespace megatron_ext {

// Documents of one key, one behind the other.
template <typename Token>
struct EncodedTexts {
  std::vector<Token> tokens;
  std::vector<std::int64_t> lengths;  // tokens of each document
  std::int64_t text_bytes = 0;        // of the texts that became documents
  std::int64_t empty = 0;             // texts without ids, which became none
};

// A row holds texts, or no document, or is odd: left to the caller, who gives its texts or drops it.
class Texts {
 public:
  explicit Texts(std::size_t num_keys) : num_keys_(num_keys) {}
  Texts(Texts&&) = default;  // and no copy, whose texts would lie in the original

  // Append a row. The texts are UTF-8 and are not copied: see keep().
  void add(const std::vector<std::string_view>& texts);
  void add_blank();
  void add_odd();

  // Moves text to where it stays as long as this object.
  std::string_view keep(std::string text);

  // Settles an odd row: a copy of its texts, one for each key, or no document.
  void replace(std::size_t row, const std::vector<std::string_view>& texts);
  void drop(std::size_t row);

  std::size_t num_rows() const { return rows_.size(); }
  std::size_t num_keys() const { return num_keys_; }
  std::vector<std::size_t> odd_rows() const;

  // Of every row that has texts; throws where an odd row is not settled.
  std::vector<std::string_view> of_key(std::size_t key) const;

  // Ids of `of_key(key)`, `before` and `after` around those of each document. Throws where an id does not
  // fit.
  template <typename Token>
  EncodedTexts<Token> encode(TextEncoder& encoder, std::size_t key, std::optional<Token> before,
                             std::optional<Token> after) const;

 private:
  enum class Row : std::uint8_t { kTexts, kBlank, kOdd };

  void settle(std::size_t row, Row kind);

  std::size_t num_keys_;
  std::vector<Row> rows_;
  std::vector<std::string_view> texts_;  // [rows, keys], empty where a row has none
  std::deque<std::string> kept_;         // a deque: what is in it never moves
};

}  // namespace megatron_ext
