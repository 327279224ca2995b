#include "utf8.h"

#include <array>
#include <cstddef>
#include <cstdint>

#include "characters.h"

namespace megatron_ext {
namespace {

// What may follow. A state is the place of its six bits in a byte's row of transitions, so that a step is one
// load and one shift (Per Vognsen's shift-based automaton).
enum State : std::uint64_t {
  kCharacter = 0,
  kReject = 6,
  kOneMore = 12,
  kTwoMore = 18,
  kThreeMore = 24,
  kAfterE0 = 30,
  kAfterED = 36,
  kAfterF0 = 42,
  kAfterF4 = 48,
};
constexpr State kStates[] = {kCharacter, kReject,  kOneMore, kTwoMore, kThreeMore,
                             kAfterE0,   kAfterED, kAfterF0, kAfterF4};

constexpr bool between(unsigned byte, unsigned low, unsigned high) { return low <= byte && byte <= high; }

// Table 3-7 of the Unicode standard.
constexpr State next(State state, unsigned byte) {
  switch (state) {
    case kCharacter:
      if (byte < 0x80) return kCharacter;
      if (between(byte, 0xC2, 0xDF)) return kOneMore;
      if (byte == 0xE0) return kAfterE0;
      if (byte == 0xED) return kAfterED;
      if (between(byte, 0xE1, 0xEF)) return kTwoMore;
      if (byte == 0xF0) return kAfterF0;
      if (between(byte, 0xF1, 0xF3)) return kThreeMore;
      return byte == 0xF4 ? kAfterF4 : kReject;
    case kOneMore:
      return between(byte, 0x80, 0xBF) ? kCharacter : kReject;
    case kTwoMore:
      return between(byte, 0x80, 0xBF) ? kOneMore : kReject;
    case kThreeMore:
      return between(byte, 0x80, 0xBF) ? kTwoMore : kReject;
    case kAfterE0:
      return between(byte, 0xA0, 0xBF) ? kOneMore : kReject;
    case kAfterED:
      return between(byte, 0x80, 0x9F) ? kOneMore : kReject;
    case kAfterF0:
      return between(byte, 0x90, 0xBF) ? kTwoMore : kReject;
    case kAfterF4:
      return between(byte, 0x80, 0x8F) ? kTwoMore : kReject;
    case kReject:
      break;
  }
  return kReject;
}

constexpr std::array<std::uint64_t, 256> transitions() {
  std::array<std::uint64_t, 256> rows{};
  for (unsigned byte = 0; byte < 256; ++byte) {
    for (const State state : kStates) rows[byte] |= static_cast<std::uint64_t>(next(state, byte)) << state;
  }
  return rows;
}

constexpr auto kTransitions = transitions();
constexpr std::size_t kBlock = 32;

// Without an early exit, which compilers turn into vector instructions.
bool is_ascii(const unsigned char* block) {
  unsigned char all = 0;
  for (std::size_t i = 0; i < kBlock; ++i) all |= block[i];
  return all < 0x80;
}

std::uint64_t stepped(std::uint64_t state, const unsigned char* bytes, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) state = kTransitions[bytes[i]] >> (state & 63);
  return state;
}

}  // namespace

bool is_utf8(std::string_view text) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(text.data());
  std::uint64_t state = kCharacter;
  std::size_t i = 0;
  for (; i + kBlock <= text.size(); i += kBlock) {
    if ((state & 63) == kCharacter && is_ascii(bytes + i)) continue;
    state = stepped(state, bytes + i, kBlock);
  }
  return (stepped(state, bytes + i, text.size() - i) & 63) == kCharacter;
}

void append_utf8(std::string& out, std::uint32_t character) {
  std::uint8_t bytes[4];
  out.append(reinterpret_cast<const char*>(bytes), encode_utf8(character, bytes));
}

}  // namespace megatron_ext
