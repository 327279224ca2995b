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

  // Hints to the kernel; where it does not take them nothing is different but the speed.
  void advise_random() const;                                    // reads will jump: do not read ahead
  void will_need(std::size_t offset, std::size_t length) const;  // inside of the file: read it now

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace megatron_ext
