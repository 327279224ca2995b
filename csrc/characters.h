// Characters of UTF-8 text, as sentencepiece reads it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace megatron_ext {

inline bool is_trail_byte(std::uint8_t byte) { return (byte & 0xC0) == 0x80; }

// Bytes of the character that starts with `lead`; its text must be valid.
inline std::size_t utf8_length(std::uint8_t lead) {
  return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

// The character of `length` bytes at `text`, which must be valid.
inline char32_t decode_utf8(const std::uint8_t* text, std::size_t length) {
  switch (length) {
    case 1:
      return text[0];
    case 2:
      return (text[0] & 0x1Fu) << 6 | (text[1] & 0x3Fu);
    case 3:
      return (text[0] & 0x0Fu) << 12 | (text[1] & 0x3Fu) << 6 | (text[2] & 0x3Fu);
    default:
      return (text[0] & 0x07u) << 18 | (text[1] & 0x3Fu) << 12 | (text[2] & 0x3Fu) << 6 | (text[3] & 0x3Fu);
  }
}

// Bytes of the character at `text`, 0 if that is none: overlong, a surrogate, beyond U+10FFFF, or cut short
// by `end`. These are the cases for which sentencepiece takes one byte as U+FFFD.
inline std::size_t valid_utf8_length(const std::uint8_t* text, const std::uint8_t* end) {
  if (text[0] < 0x80) return 1;
  if (text[0] < 0xC2 || text[0] > 0xF4) return 0;
  const auto length = utf8_length(text[0]);
  if (static_cast<std::size_t>(end - text) < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if (!is_trail_byte(text[i])) return 0;
  }
  if (length == 2) return length;
  const char32_t character = decode_utf8(text, length);
  if (length == 3) return character >= 0x800 && (character < 0xD800 || character > 0xDFFF) ? length : 0;
  return character >= 0x10000 && character <= 0x10FFFF ? length : 0;
}

// Writes `character` and returns how many bytes it took, at most 4.
inline std::size_t encode_utf8(char32_t character, std::uint8_t* out) {
  const auto trail = [character](int shift) {
    return static_cast<std::uint8_t>(0x80 | (character >> shift & 0x3F));
  };
  if (character < 0x80) {
    out[0] = static_cast<std::uint8_t>(character);
    return 1;
  }
  if (character < 0x800) {
    out[0] = static_cast<std::uint8_t>(0xC0 | character >> 6);
    out[1] = trail(0);
    return 2;
  }
  if (character < 0x10000) {
    out[0] = static_cast<std::uint8_t>(0xE0 | character >> 12);
    out[1] = trail(6);
    out[2] = trail(0);
    return 3;
  }
  out[0] = static_cast<std::uint8_t>(0xF0 | character >> 18);
  out[1] = trail(12);
  out[2] = trail(6);
  out[3] = trail(0);
  return 4;
}

}  // namespace megatron_ext
