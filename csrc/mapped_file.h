// A whole file as read-only memory.
#pragma once

#include <cstddef>
#include <string>

namespace megatron_ext {

class MappedFile {
 public:
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::string& path() const { return path_; }
  const std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

// Hints to the kernel about memory of a mapped file; a kernel that does not take one reads all the same.
void advise_random(const std::byte* begin, std::size_t size);  // no neighbour of what is read is wanted
void advise_needed(const std::byte* begin, std::size_t size);  // all of it, soon: reads it in the background

}  // namespace megatron_ext
