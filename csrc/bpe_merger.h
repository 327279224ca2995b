// Byte-pair encoding of one chunk of text, from its characters up.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "bpe_model.h"

namespace megatron_ext {

class BpeMerger {
 public:
  // `model` must outlive this.
  explicit BpeMerger(const BpeModel& model) : model_(model) {}

  // Appends the ids of [text, end), which is valid UTF-8 and not cut where the model says joinable().
  void encode(const std::uint8_t* text, const std::uint8_t* end, std::vector<std::uint32_t>& ids);

  // A symbol and where it starts in the text.
  struct Token {
    Symbol symbol;
    std::uint32_t start;
  };
  using Tokens = std::vector<Token>;

 private:
  std::uint32_t read(std::uint32_t start, std::uint32_t end, std::size_t max_tokens, Tokens& tokens) const;
  bool is_boundary(std::uint32_t block_end);
  void merge(Tokens& tokens);
  void merge_few(Tokens& tokens);

  const BpeModel& model_;
  const std::uint8_t* text_ = nullptr;
  std::uint32_t size_ = 0;
  Tokens done_;   // of the text up to the block
  Tokens block_;  // of the block in work
  Tokens pair_;
  std::vector<Merge> merges_;
};

}  // namespace megatron_ext
