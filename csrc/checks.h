// Checks of what comes from outside. They throw: assert is compiled out of extensions and guards nothing.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace megatron_ext {

// A file that cannot be used. Its text names the file; Python sees megatron_ext.errors.DataError.
class DataError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

template <typename... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}

// The input is at fault. The message is put together only when it is needed.
template <typename... Parts>
void require_data(bool condition, const Parts&... message) {
  if (!condition) throw DataError(concat(message...));
}

// The caller is at fault: Python sees ValueError.
template <typename... Parts>
void require_argument(bool condition, const Parts&... message) {
  if (!condition) throw std::invalid_argument(concat(message...));
}

}  // namespace megatron_ext
