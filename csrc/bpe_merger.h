// Byte-pair encoding of one chunk of text, from its characters up.
#pragma once

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

 private:
  void merge_few();
  void merge_many();

  const BpeModel& model_;
  std::vector<Symbol> symbols_;  // kept between calls for its memory only, unless that is large
  std::vector<Merge> merges_;
};

}  // namespace megatron_ext
