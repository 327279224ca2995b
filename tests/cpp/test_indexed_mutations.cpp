// Thousands of damaged .idx files, the same at every run: each is refused, or every access stays inside of
// the files (AddressSanitizer) and gives what the .bin holds there.
#include <algorithm>
#include <memory>
#include <numeric>
#include <random>

#include "checks.h"
#include "indexed_reader.h"
#include "sample_index.h"
#include "testing.h"

namespace megatron_ext::testing {
namespace {

constexpr std::int64_t kSeqLength = 5;

const std::uint64_t kHostile[] = {
    0, 1, 2, 0x7fffffffu, 0x80000000u, 0xffffffffu, 1ull << 61, (1ull << 63) - 1, 1ull << 63, ~0ull, ~1ull,
};

class Mutator {
 public:
  explicit Mutator(std::uint64_t seed) : random_(seed) {}

  // Damages one to three places, often in the header, and sometimes the size.
  std::string damaged(std::string idx) {
    for (std::uint64_t n = 1 + below(3); n > 0; --n) {
      const std::size_t place = below(8) == 0 ? below(std::min(idx.size(), kHeaderBytes)) : below(idx.size());
      switch (below(3)) {
        case 0:
          idx[place] = static_cast<char>(idx[place] ^ static_cast<char>(1u << below(8)));
          break;
        case 1:
          idx[place] = static_cast<char>(below(256));
          break;
        default:
          overwrite(idx, place);
      }
    }
    if (below(8) == 0) idx.resize(below(idx.size() + 40));
    return idx;
  }

  std::uint64_t below(std::uint64_t limit) { return random_() % limit; }

 private:
  // A whole value that is hostile, where values start as often as elsewhere.
  void overwrite(std::string& idx, std::size_t place) {
    const std::size_t starts[] = {kVersionOffset, kSequencesOffset, kDocumentsOffset, kHeaderBytes};
    const std::size_t start = below(4) == 0 ? starts[below(std::size(starts))] : place;
    const std::uint64_t value = kHostile[below(std::size(kHostile))];
    const std::size_t width = below(2) == 0 ? 4 : 8;
    if (start + width <= idx.size()) std::memcpy(idx.data() + start, &value, width);
  }

  std::mt19937_64 random_;
};

// Runs what may be refused.
template <typename Action>
void attempt(Action action) {
  try {
    action();
  } catch (const DataError&) {
  } catch (const std::out_of_range&) {
  } catch (const std::invalid_argument&) {
  }
}

void check_rows(const SampleSource& source, std::int64_t sample, const std::string& bin) {
  std::string row(static_cast<std::size_t>(source.row_tokens()) * source.reader().token_bytes(), '\0');
  const std::int64_t valid = source.fill(sample, reinterpret_cast<std::byte*>(row.data()));
  CHECK(valid >= 0 && valid <= source.row_tokens());
  // The tokens of the .bin differ all from one another, so its windows are found by search.
  const std::size_t bytes = static_cast<std::size_t>(valid) * source.reader().token_bytes();
  if (dynamic_cast<const WindowSamples*>(&source) != nullptr) {
    CHECK(bin.find(row.substr(0, bytes)) != std::string::npos);
  }
}

void use_everything(const std::shared_ptr<const IndexedReader>& reader, const std::string& bin,
                    std::int64_t near) {
  for (const std::int64_t i : {std::int64_t{0}, near - 1, near, near + 1, reader->num_sequences() - 1}) {
    attempt([&] {
      const std::int64_t length = reader->sequence_length(i), start = reader->sequence_start(i);
      const std::size_t size = static_cast<std::size_t>(length) * reader->token_bytes();
      CHECK(std::memcmp(reader->tokens(start, length),
                        bin.data() + static_cast<std::size_t>(start) * reader->token_bytes(), size) == 0);
    });
  }
  const std::int64_t sequences = reader->num_sequences();
  attempt([&] {
    const WindowSamples windows(reader, 0, sequences, kSeqLength, 7);
    for (std::int64_t sample = 0; sample < 20; ++sample) check_rows(windows, sample, bin);
  });
  attempt([&] { WindowSamples(reader, near, sequences, kSeqLength, 7); });
  attempt([&] {
    std::vector<std::int32_t> lengths(static_cast<std::size_t>(sequences));
    reader->copy_sequence_lengths(lengths.data());
    std::vector<std::int32_t> order(lengths.size());
    std::iota(order.begin(), order.end(), 0);
    const std::int64_t samples = (reader->num_tokens() - 1) / kSeqLength;
    const auto index =
        build_sample_index(lengths.data(), sequences, order.data(), sequences, kSeqLength, samples);
    std::vector<std::uint32_t> shuffle(static_cast<std::size_t>(samples));
    std::iota(shuffle.begin(), shuffle.end(), 0u);
    const MegatronSamples megatron(reader, order, index, shuffle, kSeqLength);
    for (std::int64_t sample = 0; sample < samples; sample += 1 + samples / 20) {
      check_rows(megatron, sample, bin);
    }
  });
  attempt([&] {
    std::vector<std::int64_t> documents(static_cast<std::size_t>(reader->num_documents()) + 1);
    reader->copy_document_indices(documents.data());
    CHECK(std::is_sorted(documents.begin(), documents.end()) && documents.back() == sequences);
  });
  attempt([&] { reader->verify(); });
}

// Returns how many of the damaged files could be opened.
int fuzz(const Index& index, const std::string& bin, int rounds) {
  const Folder folder;
  const std::string right = index.bytes();
  write_file(folder.file("set.bin"), bin);
  Mutator mutator(20240229);
  int opened = 0;
  for (int round = 0; round < rounds; ++round) {
    write_file(folder.file("set.idx"), mutator.damaged(right));
    const auto near = static_cast<std::int64_t>(mutator.below(index.lengths.size()));
    try {
      use_everything(std::make_shared<const IndexedReader>(folder.file("set")), bin, near);
      ++opened;
    } catch (const DataError& error) {
      CHECK(std::string(error.what()).find(folder.file("set")) != std::string::npos);
    }
  }
  return opened;
}

}  // namespace
}  // namespace megatron_ext::testing

int main() {
  using megatron_ext::testing::Index;
  const auto tokens = megatron_ext::testing::counting_tokens;
  CHECK(megatron_ext::testing::fuzz(Index::of({3, 0, 4, 1, 9}), tokens(17), 20000) > 0);
  CHECK(megatron_ext::testing::fuzz(Index::of(std::vector<std::int32_t>(12000, 3)), tokens(36000), 1500) >
        300);
}
