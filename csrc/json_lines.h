// The strings that lie under some keys in lines of JSON, without a tree of the rest.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "texts.h"

namespace megatron_ext {

// Rows of `block`, lines that end in \n (the last one perhaps not). Every line is checked to its end: grammar
// (RFC 8259), escapes, UTF-8. Half of a surrogate pair is U+FFFD.
//
// Blank is a line of ASCII white space. Odd is every line that parsers treat differently or that has no
// string under each key: broken, not UTF-8, no object, a key of ours twice, deep, a very long number. What
// becomes of those is not decided here.
//
// The texts may lie in `block`, which has to stay.
Texts scan_json_lines(std::string_view block, const std::vector<std::string>& keys);

}  // namespace megatron_ext
