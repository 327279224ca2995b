// Text as bytes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace megatron_ext {

// Whether bytes are UTF-8 as Python's strict decoder takes it: no surrogates, no overlong forms, no more than
// U+10FFFF.
bool is_utf8(std::string_view bytes);

// Appends a character up to U+10FFFF that is no surrogate.
void append_utf8(std::string& out, std::uint32_t character);

}  // namespace megatron_ext
