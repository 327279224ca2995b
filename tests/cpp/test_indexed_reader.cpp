#include <stdexcept>

#include "checks.h"
#include "indexed_reader.h"
#include "testing.h"

namespace megatron_ext::testing {
namespace {

constexpr std::int64_t kMany = 12000;  // sequences: more than are checked when the file is opened

std::string write_set(const Folder& folder, const Index& index, std::int64_t num_tokens) {
  write_file(folder.file("set.idx"), index.bytes());
  write_file(folder.file("set.bin"), counting_tokens(num_tokens));
  return folder.file("set");
}

void a_dataset_is_read() {
  const Folder folder;
  const IndexedReader reader(write_set(folder, Index::of({3, 0, 4}), 7));
  reader.verify();
  CHECK(reader.num_sequences() == 3 && reader.num_documents() == 3 && reader.num_tokens() == 7);
  CHECK(reader.sequence_length(1) == 0 && reader.sequence_start(2) == 3 && reader.sequence_start(3) == 7);
  for (std::int64_t i = 0; i < 7; ++i) CHECK(load<std::uint16_t>(reader.tokens(i, 7 - i)) == i + 1);
  std::vector<std::int32_t> lengths(3);
  reader.copy_sequence_lengths(lengths.data());
  CHECK((lengths == std::vector<std::int32_t>{3, 0, 4}));
  std::vector<std::int64_t> documents(4);
  reader.copy_document_indices(documents.data());
  CHECK((documents == std::vector<std::int64_t>{0, 1, 2, 3}));
}

void what_is_not_there_is_out_of_range() {
  const Folder folder;
  const IndexedReader reader(write_set(folder, Index::of({3, 0, 4}), 7));
  for (const std::int64_t sequence : {std::int64_t{-1}, std::int64_t{4}, INT64_MAX, INT64_MIN}) {
    CHECK(throws<std::out_of_range>([&] { reader.sequence_length(sequence); }, "set.bin"));
    CHECK(throws<std::out_of_range>([&] { reader.sequence_start(sequence); }, "set.bin"));
  }
  CHECK(throws<std::out_of_range>([&] { reader.sequence_length(3); }));
  const std::pair<std::int64_t, std::int64_t> ranges[] = {{0, 8},         {7, 1},  {8, 0},        {-1, 1},
                                                          {INT64_MAX, 1}, {1, -1}, {1, INT64_MAX}};
  for (const auto& [first, count] : ranges) {
    CHECK(throws<std::out_of_range>([&, first = first, count = count] { reader.tokens(first, count); }));
  }
}

void an_empty_dataset_is_one() {
  const Folder folder;
  const IndexedReader reader(write_set(folder, Index::of({}), 0));
  CHECK(reader.num_tokens() == 0 && reader.sequence_start(0) == 0);
  CHECK(throws<DataError>([&] { IndexedReader{write_set(folder, Index::of({}), 1)}; }, "not a pair"));
}

// The middle of a large index is not read at open, and is refused where it is used.
void damage_in_the_middle_is_found_at_access() {
  const Folder folder;
  const Index right = Index::of(std::vector<std::int32_t>(kMany, 3));
  const auto refused = [&](const Index& index, std::int64_t sequence, const std::string& message) {
    const IndexedReader reader(write_set(folder, index, 3 * kMany));
    CHECK(reader.sequence_start(5) == 15 && reader.sequence_length(kMany - 1) == 3);
    CHECK(throws<DataError>([&] { reader.sequence_length(sequence); }, message));
    CHECK(throws<DataError>([&] { reader.sequence_start(sequence); }, message));
    CHECK(throws<DataError>([&] { reader.verify(); }, "set.idx: sequence "));
  };
  for (const std::int32_t length : {-1, INT32_MIN, INT32_MAX, 0, 4}) {
    Index index = right;
    index.lengths[4000] = length;
    refused(index, 4000, "set.idx: sequence 4000");
  }
  for (const std::int64_t offset : {std::int64_t{-2}, INT64_MIN, INT64_MAX, std::int64_t{1}, std::int64_t{0},
                                    INT64_MAX - 5, std::int64_t{6 * kMany}}) {
    Index index = right;
    index.offsets[4000] = offset;
    refused(index, 4000, "set.idx: sequence 4000");
    refused(index, 3999, "set.idx: sequence 3999 ends at byte 24000, but sequence 4000 starts at byte");
  }
  Index backwards = right;  // consistent, too
  backwards.lengths[4000] = -1;
  backwards.offsets[4001] = backwards.offsets[4000] - 2;
  refused(backwards, 4000, "sequence 4000 has a negative length, -1");
  Index gap = right;  // consistent but for one token that belongs to no sequence
  gap.lengths[4000] = 2;
  refused(gap, 4000, "sequences must lie one behind the other");
}

// Twelve bytes each for 2^62 sequences are 0 modulo 2^64, and eight for 2^61 document indices.
void counts_whose_products_overflow_are_refused() {
  const Folder folder;
  const std::string right = Index::of({3, 0, 4}).bytes();
  const std::uint64_t body = right.size() - kHeaderBytes, much = std::uint64_t{1} << 62;
  const std::pair<std::uint64_t, std::uint64_t> counts[] = {{much, body / 8},  {much + 3, 4},
                                                            {3, much / 2 + 4}, {3 * much, body / 8},
                                                            {~0ull, ~0ull},    {0, much / 2}};
  for (const auto& [sequences, documents] : counts) {
    std::string idx = right;
    std::memcpy(idx.data() + kSequencesOffset, &sequences, sizeof(sequences));
    std::memcpy(idx.data() + kDocumentsOffset, &documents, sizeof(documents));
    write_file(folder.file("set.idx"), idx);
    write_file(folder.file("set.bin"), counting_tokens(7));
    CHECK(throws<DataError>([&] { IndexedReader{folder.file("set")}; }, "cut short"));
  }
}

void arrays_are_copied_only_if_they_are_right() {
  const Folder folder;
  const Index right = Index::of(std::vector<std::int32_t>(kMany, 3));
  std::vector<std::int32_t> lengths(kMany);
  std::vector<std::int64_t> documents(kMany + 1);
  for (const std::int32_t length : {-1, 4, INT32_MAX}) {
    Index index = right;
    index.lengths[4000] = length;
    const IndexedReader reader(write_set(folder, index, 3 * kMany));
    CHECK(throws<DataError>([&] { reader.copy_sequence_lengths(lengths.data()); }, "set.idx"));
  }
  Index index = right;
  index.documents[4000] = INT64_MAX;
  const IndexedReader reader(write_set(folder, index, 3 * kMany));
  CHECK(throws<DataError>([&] { reader.copy_document_indices(documents.data()); }, "document index 4001"));
  CHECK(throws<DataError>([&] { reader.verify(); }, "document index 4001"));
}

void hints_change_nothing() {
  const Folder folder;
  write_file(folder.file("a"), std::string(10000, 'x'));
  write_file(folder.file("empty"), "");
  const MappedFile file(folder.file("a")), empty(folder.file("empty"));
  file.advise_random();
  file.will_need(5000, 5000);
  empty.advise_random();
  empty.will_need(0, 0);
  CHECK(file.data()[9999] == std::byte{'x'});
}

}  // namespace
}  // namespace megatron_ext::testing

int main() {
  megatron_ext::testing::a_dataset_is_read();
  megatron_ext::testing::what_is_not_there_is_out_of_range();
  megatron_ext::testing::an_empty_dataset_is_one();
  megatron_ext::testing::damage_in_the_middle_is_found_at_access();
  megatron_ext::testing::counts_whose_products_overflow_are_refused();
  megatron_ext::testing::arrays_are_copied_only_if_they_are_right();
  megatron_ext::testing::hints_change_nothing();
}
