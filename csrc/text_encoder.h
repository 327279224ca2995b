// What turns text into ids, whatever the vocabulary.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

namespace megatron_ext {

// Turns documents into ids. Remembers what it has seen, so one thread at a time uses it; clone() gives one
// for another thread (sharing the immutable model, with a memory of its own).
class TextEncoder {
 public:
  virtual ~TextEncoder() = default;

  // Appends the ids of `text`: any bytes at all; what is not UTF-8 counts as U+FFFD, by sentencepiece's
  // rules.
  virtual void encode(std::string_view text, std::vector<std::uint32_t>& ids) = 0;

  virtual std::unique_ptr<TextEncoder> clone() const = 0;
};

}  // namespace megatron_ext
