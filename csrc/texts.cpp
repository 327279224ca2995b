#include "texts.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "checks.h"

namespace megatron_ext {

void Texts::add(const std::vector<std::string_view>& texts) {
  require_argument(texts.size() == num_keys_, "a row has ", texts.size(), " texts, not ", num_keys_);
  rows_.push_back(Row::kTexts);
  texts_.insert(texts_.end(), texts.begin(), texts.end());
}

void Texts::add_blank() {
  rows_.push_back(Row::kBlank);
  texts_.resize(texts_.size() + num_keys_);
}

void Texts::add_odd() {
  rows_.push_back(Row::kOdd);
  texts_.resize(texts_.size() + num_keys_);
}

std::string_view Texts::keep(std::string text) { return kept_.emplace_back(std::move(text)); }

void Texts::replace(std::size_t row, const std::vector<std::string_view>& texts) {
  require_argument(texts.size() == num_keys_, "a row has ", texts.size(), " texts, not ", num_keys_);
  settle(row, Row::kTexts);
  for (std::size_t key = 0; key < num_keys_; ++key) {
    texts_[row * num_keys_ + key] = keep(std::string(texts[key]));
  }
}

void Texts::drop(std::size_t row) { settle(row, Row::kBlank); }

void Texts::settle(std::size_t row, Row kind) {
  require_argument(row < rows_.size() && rows_[row] == Row::kOdd, "row ", row, " is not odd");
  rows_[row] = kind;
}

std::vector<std::size_t> Texts::odd_rows() const {
  std::vector<std::size_t> odd;
  for (std::size_t row = 0; row < rows_.size(); ++row) {
    if (rows_[row] == Row::kOdd) odd.push_back(row);
  }
  return odd;
}

std::vector<std::string_view> Texts::of_key(std::size_t key) const {
  require_argument(key < num_keys_, "there is no key ", key);
  std::vector<std::string_view> texts;
  for (std::size_t row = 0; row < rows_.size(); ++row) {
    require_argument(rows_[row] != Row::kOdd, "row ", row, " is odd: replace or drop it");
    if (rows_[row] == Row::kTexts) texts.push_back(texts_[row * num_keys_ + key]);
  }
  return texts;
}

template <typename Token>
EncodedTexts<Token> Texts::encode(TextEncoder& encoder, std::size_t key, std::optional<Token> before,
                                  std::optional<Token> after) const {
  constexpr auto kLargest = static_cast<std::uint32_t>(std::numeric_limits<Token>::max());
  EncodedTexts<Token> encoded;
  auto& tokens = encoded.tokens;
  std::vector<std::uint32_t> ids;
  for (const auto text : of_key(key)) {
    ids.clear();
    encoder.encode(text, ids);
    if (ids.empty()) {
      ++encoded.empty;
      continue;
    }
    const auto largest = *std::max_element(ids.begin(), ids.end());
    require_data(largest <= kLargest, "token id ", largest, " does not fit the dataset's dtype (", kLargest,
                 " at most)");
    const auto start = tokens.size();
    if (before) tokens.push_back(*before);
    tokens.insert(tokens.end(), ids.begin(), ids.end());
    if (after) tokens.push_back(*after);
    encoded.lengths.push_back(static_cast<std::int64_t>(tokens.size() - start));
    encoded.text_bytes += static_cast<std::int64_t>(text.size());
  }
  return encoded;
}

template EncodedTexts<std::uint16_t> Texts::encode(TextEncoder&, std::size_t, std::optional<std::uint16_t>,
                                                   std::optional<std::uint16_t>) const;
template EncodedTexts<std::int32_t> Texts::encode(TextEncoder&, std::size_t, std::optional<std::int32_t>,
                                                  std::optional<std::int32_t>) const;

}  // namespace megatron_ext
