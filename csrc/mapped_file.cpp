#include "mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "checks.h"

namespace megatron_ext {
namespace {

// Whole pages that hold [begin, begin + size).
void advise(const std::byte* begin, std::size_t size, int advice) {
  if (size == 0) return;
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const std::uintptr_t inside = reinterpret_cast<std::uintptr_t>(begin) % page;
  ::madvise(const_cast<std::byte*>(begin) - inside, size + inside, advice);
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
    }
  }
  ::close(descriptor);  // the mapping outlives it
  require_data(error == 0, path, ": cannot be mapped into memory: ", std::strerror(error));
  require_data(regular, path, ": is not a regular file");
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

void advise_random(const std::byte* begin, std::size_t size) { advise(begin, size, MADV_RANDOM); }
void advise_needed(const std::byte* begin, std::size_t size) { advise(begin, size, MADV_WILLNEED); }

}  // namespace megatron_ext
