// Every byte is its own id.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "text_encoder.h"

namespace megatron_ext {

class ByteEncoder : public TextEncoder {
 public:
  void encode(std::string_view text, std::vector<std::uint32_t>& ids) override {
    const auto* bytes = reinterpret_cast<const unsigned char*>(text.data());
    ids.insert(ids.end(), bytes, bytes + text.size());
  }

  std::unique_ptr<TextEncoder> clone() const override { return std::make_unique<ByteEncoder>(); }
};

}  // namespace megatron_ext
