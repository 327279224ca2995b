// The .idx format of Megatron-LM, little endian:
//
//   offset    type     content
//   0         9 bytes  "MMIDIDX\0\0"
//   9         u64      version, 1
//   17        u8       type of a token (TokenType)
//   18        u64      number of sequences N
//   26        u64      number of document indices D, one more than documents
//   34        i32[N]   tokens in each sequence
//   34 +  4N  i64[N]   byte offset of each sequence in the .bin
//   34 + 12N  i64[D]   first sequence of each document, then N
//
// Nothing after the header is aligned: read it with load(), never through a typed pointer.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace megatron_ext {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the format is little endian and read as it is");

enum class TokenType : std::uint8_t {
  kUint8 = 1,
  kInt8 = 2,
  kInt16 = 3,
  kInt32 = 4,
  kInt64 = 5,
  kFloat64 = 6,  // GPT-NeoX swaps 6 and 7; a token is never a float, so both are refused
  kFloat32 = 7,
  kUint16 = 8,
};

constexpr std::array<char, 9> kMagic = {'M', 'M', 'I', 'D', 'I', 'D', 'X', '\0', '\0'};
constexpr std::uint64_t kVersion = 1;
constexpr std::size_t kVersionOffset = 9;
constexpr std::size_t kTypeOffset = 17;
constexpr std::size_t kSequencesOffset = 18;
constexpr std::size_t kDocumentsOffset = 26;
constexpr std::size_t kHeaderBytes = 34;
constexpr std::size_t kBytesPerSequence = sizeof(std::int32_t) + sizeof(std::int64_t);

// Bytes of one token, 0 for what cannot be a token.
constexpr std::size_t item_size(TokenType type) {
  switch (type) {
    case TokenType::kUint8:
    case TokenType::kInt8:
      return 1;
    case TokenType::kInt16:
    case TokenType::kUint16:
      return 2;
    case TokenType::kInt32:
      return 4;
    case TokenType::kInt64:
      return 8;
    case TokenType::kFloat64:
    case TokenType::kFloat32:
      return 0;
  }
  return 0;
}

template <typename T>
T load(const std::byte* address) {
  T value;
  std::memcpy(&value, address, sizeof(T));
  return value;
}

}  // namespace megatron_ext
