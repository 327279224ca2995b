#include "mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "checks.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace megatron_ext {
namespace {

std::size_t page_size() {
  static const auto size = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  return size;
}

// The rest of a file's last page can be read without a fault. Under AddressSanitizer it cannot, so that the
// tests see reads behind the end of the file.
void set_tail_readable([[maybe_unused]] const std::byte* data, [[maybe_unused]] std::size_t size,
                       [[maybe_unused]] bool readable) {
#if defined(__SANITIZE_ADDRESS__)
  const std::size_t tail = (page_size() - size % page_size()) % page_size();
  if (readable) {
    __asan_unpoison_memory_region(data + size, tail);
  } else {
    __asan_poison_memory_region(data + size, tail);
  }
#endif
}

}  // namespace

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  require_data(descriptor >= 0, path, ": cannot be opened: ", std::strerror(errno));
  struct stat status{};
  int error = ::fstat(descriptor, &status) == 0 ? 0 : errno;
  const bool regular = error == 0 && S_ISREG(status.st_mode);
  if (regular && status.st_size > 0) {  // an empty file cannot be mapped, and need not be
    size_ = static_cast<std::size_t>(status.st_size);
    void* address = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, descriptor, 0);
    if (address == MAP_FAILED) {
      error = errno;
    } else {
      data_ = static_cast<const std::byte*>(address);
      set_tail_readable(data_, size_, false);
    }
  }
  ::close(descriptor);  // the mapping outlives it
  require_data(error == 0, path, ": cannot be mapped into memory: ", std::strerror(error));
  require_data(regular, path, ": is not a regular file");
}

MappedFile::~MappedFile() {
  if (data_ == nullptr) return;
  set_tail_readable(data_, size_, true);
  ::munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::advise_random() const {
  if (data_ != nullptr) ::madvise(const_cast<std::byte*>(data_), size_, MADV_RANDOM);
}

void MappedFile::will_need(std::size_t offset, std::size_t length) const {
  if (data_ == nullptr) return;
  const std::size_t start = offset - offset % page_size();  // the kernel takes whole pages only
  ::madvise(const_cast<std::byte*>(data_) + start, offset - start + length, MADV_WILLNEED);
}

}  // namespace megatron_ext
