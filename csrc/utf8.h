// Whether bytes are UTF-8, as Python's strict decoder takes it: no surrogates, no overlong forms, no more
// than U+10FFFF.
#pragma once

#include <string_view>

namespace megatron_ext {

bool is_utf8(std::string_view bytes);

}  // namespace megatron_ext
