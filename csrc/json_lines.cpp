#include "json_lines.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <utility>

#include "utf8.h"

namespace megatron_ext {
namespace {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the first byte of eight is the lowest");

constexpr int kDeepest = 64;                 // Python's json goes deeper, and gives up somewhere
constexpr std::size_t kLongestNumber = 600;  // Python limits digits; 640 is the lowest limit it can be given

bool is_special(char c) { return c == '"' || c == '\\' || static_cast<unsigned char>(c) < 0x20; }

// Eight bytes at once: 0x80 in the first special one, perhaps in some behind it, in none before it.
std::uint64_t special_bits(std::uint64_t bytes) {
  constexpr std::uint64_t kOnes = 0x0101010101010101;
  const auto below = [](std::uint64_t values, std::uint64_t limit) {
    return (values - kOnes * limit) & ~values;  // a borrow starts at a byte below the limit only
  };
  return (below(bytes ^ kOnes * '"', 1) | below(bytes ^ kOnes * '\\', 1) | below(bytes, 0x20)) & kOnes * 0x80;
}

// The first byte that a string does not take as it is, or `end`.
const char* find_special(const char* p, const char* end) {
  for (; end - p >= 8; p += 8) {
    std::uint64_t bytes;
    std::memcpy(&bytes, p, sizeof(bytes));
    const auto bits = special_bits(bytes);
    if (bits != 0) return p + __builtin_ctzll(bits) / 8;
  }
  while (p < end && !is_special(*p)) ++p;
  return p;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Value of a hexadecimal digit, 16 or more for anything else.
unsigned hex_value(char c) {
  if (is_digit(c)) return static_cast<unsigned>(c - '0');
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? static_cast<unsigned>(lower - 'a' + 10) : 16;
}

bool is_high_surrogate(std::uint32_t unit) { return unit >= 0xD800 && unit < 0xDC00; }
bool is_low_surrogate(std::uint32_t unit) { return unit >= 0xDC00 && unit < 0xE000; }

// One line, from left to right. Every function that gives false has met something odd.
class Scanner {
 public:
  Scanner(std::string_view line, const std::vector<std::string>& keys, Texts& texts)
      : p_(line.data()), end_(line.data() + line.size()), keys_(keys), texts_(texts) {}

  // The whole line is an object, which has a string under each key: found[i] under keys[i].
  bool scan(std::vector<std::string_view>& found) {
    found.assign(keys_.size(), {});
    space();
    if (!take('{') || !members(1, &found)) return false;
    space();
    return p_ == end_ &&
           std::all_of(found.begin(), found.end(), [](auto text) { return text.data() != nullptr; });
  }

 private:
  void space() {
    while (p_ < end_ && (*p_ == ' ' || *p_ == '\t' || *p_ == '\n' || *p_ == '\r')) ++p_;
  }

  bool at(char c) const { return p_ < end_ && *p_ == c; }

  bool take(char c) {
    if (!at(c)) return false;
    ++p_;
    return true;
  }

  // What follows {. `found` is there for the outermost object only.
  bool members(int depth, std::vector<std::string_view>* found) {
    space();
    if (take('}')) return true;
    do {
      space();
      std::optional<std::size_t> wanted;
      if (found ? !key(wanted) : !take('"') || !string(nullptr)) return false;
      space();
      if (!take(':')) return false;
      space();
      if (!(wanted ? text((*found)[*wanted]) : value(depth))) return false;
      space();
    } while (take(','));
    return take('}');
  }

  // What follows [.
  bool elements(int depth) {
    space();
    if (take(']')) return true;
    do {
      space();
      if (!value(depth)) return false;
      space();
    } while (take(','));
    return take(']');
  }

  bool value(int depth) {
    if (p_ == end_) return false;
    switch (*p_) {
      case '"':
        ++p_;
        return string(nullptr);
      case '{':
        ++p_;
        return depth < kDeepest && members(depth + 1, nullptr);
      case '[':
        ++p_;
        return depth < kDeepest && elements(depth + 1);
      case 't':
        return word("true");
      case 'f':
        return word("false");
      case 'n':
        return word("null");
      default:
        return number();
    }
  }

  bool word(std::string_view expected) {
    if (std::string_view(p_, static_cast<std::size_t>(end_ - p_)).substr(0, expected.size()) != expected) {
      return false;
    }
    p_ += expected.size();
    return true;
  }

  bool number() {
    const char* start = p_;
    take('-');
    if (!take('0') && !digits()) return false;
    if (take('.') && !digits()) return false;
    if (at('e') || at('E')) {
      ++p_;
      if (!take('+')) take('-');
      if (!digits()) return false;
    }
    return static_cast<std::size_t>(p_ - start) <= kLongestNumber;
  }

  bool digits() {
    const char* start = p_;
    while (p_ < end_ && is_digit(*p_)) ++p_;
    return p_ > start;
  }

  // A key of the outermost object, and which of ours it is.
  bool key(std::optional<std::size_t>& wanted) {
    if (!take('"')) return false;
    const char* start = p_;
    p_ = find_special(p_, end_);
    std::string_view name(start, static_cast<std::size_t>(p_ - start));
    if (!at('"')) {
      p_ = start;
      scratch_.clear();
      halves_ = false;
      // A half of a surrogate pair is no U+FFFD here: keys are told apart before that is put in its place.
      if (!string(&scratch_) || halves_) return false;
      name = scratch_;
    } else {
      ++p_;
    }
    const auto place = std::find(keys_.begin(), keys_.end(), name);
    if (place != keys_.end()) wanted = static_cast<std::size_t>(place - keys_.begin());
    return true;
  }

  // The string under one of our keys: a view of the line if it can be. Not twice.
  bool text(std::string_view& found) {
    if (found.data() != nullptr || !take('"')) return false;
    const char* start = p_;
    p_ = find_special(p_, end_);
    if (take('"')) {
      found = std::string_view(start, static_cast<std::size_t>(p_ - 1 - start));
      return true;
    }
    std::string unescaped(start, p_);
    if (!string(&unescaped)) return false;
    found = texts_.keep(std::move(unescaped));
    return true;
  }

  // The rest of a string and its closing quote; appended to `out`, if there is one, without escapes.
  bool string(std::string* out) {
    while (true) {
      const char* start = p_;
      p_ = find_special(p_, end_);
      if (out) out->append(start, p_);
      if (p_ == end_) return false;
      const char special = *p_++;
      if (special == '"') return true;
      if (special != '\\' || p_ == end_ || !escape(*p_++, out)) return false;
    }
  }

  // What follows a backslash, whose next character is `kind`.
  bool escape(char kind, std::string* out) {
    static constexpr std::string_view kKinds = "\"\\/bfnrt", kMeanings = "\"\\/\b\f\n\r\t";
    if (kind != 'u') {
      const auto place = kKinds.find(kind);
      if (place == std::string_view::npos) return false;
      if (out) *out += kMeanings[place];
      return true;
    }
    std::uint32_t unit = 0;
    if (!code_unit(unit)) return false;
    if (is_high_surrogate(unit) && end_ - p_ >= 6 && p_[0] == '\\' && p_[1] == 'u') {
      const char* second = p_;
      std::uint32_t low = 0;
      p_ += 2;
      if (!code_unit(low)) return false;
      if (is_low_surrogate(low)) {
        unit = 0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
      } else {
        p_ = second;
      }
    }
    if (is_high_surrogate(unit) || is_low_surrogate(unit)) {
      halves_ = true;
      unit = 0xFFFD;
    }
    if (out) append_utf8(*out, unit);
    return true;
  }

  // Four hexadecimal digits.
  bool code_unit(std::uint32_t& unit) {
    if (end_ - p_ < 4) return false;
    unsigned largest = 0;
    for (int i = 0; i < 4; ++i) {
      const unsigned digit = hex_value(*p_++);
      largest = std::max(largest, digit);
      unit = unit << 4 | digit;
    }
    return largest < 16;
  }

  const char* p_;
  const char* end_;
  const std::vector<std::string>& keys_;
  Texts& texts_;
  std::string scratch_;
  bool halves_ = false;  // an escape was half of a surrogate pair
};

bool is_blank(std::string_view line) {
  return line.find_first_not_of(" \t\n\v\f\r") == std::string_view::npos;
}

}  // namespace

Texts scan_json_lines(std::string_view block, const std::vector<std::string>& keys) {
  Texts texts(keys.size());
  std::vector<std::string_view> found;
  while (!block.empty()) {
    const auto newline = block.find('\n');
    const auto line = block.substr(0, newline == std::string_view::npos ? newline : newline + 1);
    block.remove_prefix(line.size());
    if (is_blank(line)) {
      texts.add_blank();
    } else if (is_utf8(line) && Scanner(line, keys, texts).scan(found)) {
      texts.add(found);
    } else {
      texts.add_odd();
    }
  }
  return texts;
}

}  // namespace megatron_ext
