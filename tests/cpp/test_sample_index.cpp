#include <memory>
#include <stdexcept>

#include "checks.h"
#include "sample_index.h"
#include "testing.h"

namespace megatron_ext::testing {
namespace {

using Tokens = std::vector<std::uint16_t>;

std::shared_ptr<const IndexedReader> open_set(const Folder& folder,
                                              const std::vector<std::int32_t>& lengths) {
  std::int64_t tokens = 0;
  for (const auto length : lengths) tokens += length;
  write_file(folder.file("set.idx"), Index::of(lengths).bytes());
  write_file(folder.file("set.bin"), counting_tokens(tokens));
  return std::make_shared<const IndexedReader>(folder.file("set"));
}

// The row of a sample, filled with 7s before, and its valid tokens.
std::pair<Tokens, std::int64_t> row_of(const SampleSource& source, std::int64_t sample) {
  Tokens row(static_cast<std::size_t>(source.row_tokens()), 7);
  const std::int64_t valid = source.fill(sample, reinterpret_cast<std::byte*>(row.data()));
  return {row, valid};
}

void windows_share_their_edges_and_the_last_is_padded() {
  const Folder folder;
  const WindowSamples windows(open_set(folder, {4, 0, 5, 3}), 0, 4, 4, std::nullopt);
  CHECK(windows.samples_per_epoch() == 3 && windows.num_tokens() == 12);
  CHECK((row_of(windows, 0) == std::pair<Tokens, std::int64_t>{{1, 2, 3, 4, 5}, 5}));
  CHECK((row_of(windows, 2) == std::pair<Tokens, std::int64_t>{{9, 10, 11, 12, 0}, 4}));
  CHECK(row_of(windows, 3) == row_of(windows, 0));
  CHECK(row_of(windows, INT64_MAX) == row_of(windows, INT64_MAX % 3));
  CHECK(throws<std::invalid_argument>([&] { row_of(windows, -1); }));
}

void permuted_windows_come_once_an_epoch() {
  const Folder folder;
  const WindowSamples windows(open_set(folder, {301}), 0, 1, 3, 99);
  for (std::int64_t epoch = 0; epoch < 4; ++epoch) {
    std::vector<int> seen(100);
    for (std::int64_t i = 0; i < 100; ++i) ++seen[(row_of(windows, 100 * epoch + i).first[0] - 1u) / 3];
    CHECK(seen == std::vector<int>(100, 1));
  }
}

void a_set_without_tokens_is_one_empty_row() {
  const Folder folder;
  const WindowSamples windows(open_set(folder, {0, 0}), 0, 2, 3, 1);
  CHECK((row_of(windows, 5) == std::pair<Tokens, std::int64_t>{{0, 0, 0, 0}, 0}));
}

void the_index_of_samples_is_megatron_cores() {
  const std::int32_t lengths[] = {0, 3, 0, 4, 2}, order[] = {0, 3, 2, 1, 4};
  const auto index = build_sample_index(lengths, 5, order, 5, 2, 4);  // in order: 0, 4, 0, 3, 2 tokens
  CHECK((index == std::vector<std::int32_t>{0, 0, 1, 2, 3, 0, 3, 2, 4, 1}));
  CHECK(throws<std::invalid_argument>([&] { build_sample_index(lengths, 5, order, 5, 2, 5); },
                                      "1 are missing"));
}

void arguments_of_the_index_are_checked() {
  const std::int32_t lengths[] = {3, -1}, order[] = {0, 1}, wild[] = {0, 2}, negative[] = {-1};
  for (const std::int64_t seq_length : {std::int64_t{0}, std::int64_t{-1}, INT64_MAX}) {
    CHECK(throws<std::invalid_argument>([&] { build_sample_index(lengths, 1, order, 1, seq_length, 1); }));
  }
  CHECK(throws<std::invalid_argument>([&] { build_sample_index(lengths, 2, order, 2, 2, 5); },
                                      "negative length"));
  CHECK(
      throws<std::invalid_argument>([&] { build_sample_index(lengths, 2, wild, 2, 2, 5); }, "no sequence 2"));
  CHECK(throws<std::invalid_argument>([&] { build_sample_index(lengths, 2, negative, 1, 2, 5); }));
  CHECK(throws<std::invalid_argument>([&] { build_sample_index(lengths, 1, order, 1, 2, -1); }));
  CHECK(throws<std::invalid_argument>([&] { build_sample_index(lengths, 1, order, INT64_MAX, 2, 1); },
                                      "int32"));
}

void wild_arrays_of_megatron_order_stay_inside_of_the_file() {
  const Folder folder;
  const auto reader = open_set(folder, {4, 5});
  const MegatronSamples right(reader, {1, 0}, {0, 0, 0, 4, 1, 3}, {1, 0}, 4);
  CHECK((row_of(right, 0).first == Tokens{9, 1, 2, 3, 4}));
  CHECK(throws<DataError>([&] { row_of(right, 2); }, "longer than its order"));
  CHECK(throws<DataError>([&] { row_of(right, -1); }));
  const std::vector<std::vector<std::int32_t>> indices = {
      {-1, 0, 0, 0}, {2, 0, 0, 0}, {INT32_MIN, 0, 0, 0}, {0, -100, 0, 0}, {0, INT32_MAX, 0, 0}, {1, 2, 0, 0}};
  for (const auto& index : indices) {
    const MegatronSamples samples(reader, {1, 0}, index, {0}, 4);
    CHECK(throws<std::out_of_range>([&] { row_of(samples, 0); }));
  }
  const MegatronSamples unknown(reader, {2, -1}, {0, 0, 0, 0}, {0}, 4);
  CHECK(throws<std::out_of_range>([&] { row_of(unknown, 0); }, "no sequence 2"));
  CHECK(throws<std::invalid_argument>([&] { MegatronSamples(reader, {0}, {0, 0}, {0}, 4); }));
  CHECK(throws<std::invalid_argument>([&] { MegatronSamples(reader, {0}, {0, 0, 0, 0}, {1}, 4); }));
}

void batches_are_gathered_from_several_sources() {
  const Folder one, two;
  const auto windows = [](const Folder& folder, std::int32_t length) {
    return std::make_shared<const WindowSamples>(open_set(folder, {length}), 0, 1, 2, std::nullopt);
  };
  const SampleGather gather({windows(one, 5), windows(two, 2)});
  Tokens rows(9, 7);
  std::int32_t valid[3];
  const std::int32_t sources[] = {1, -1, 0};
  const std::int64_t samples[] = {0, 0, 1};
  gather.gather(sources, samples, 3, reinterpret_cast<std::byte*>(rows.data()), valid);
  CHECK((rows == Tokens{1, 2, 0, 0, 0, 0, 3, 4, 5}));
  CHECK(valid[0] == 2 && valid[1] == 0 && valid[2] == 3);
  for (const std::int32_t unknown : {2, -2, INT32_MIN, INT32_MAX}) {
    CHECK(throws<std::invalid_argument>(
        [&] { gather.gather(&unknown, samples, 1, reinterpret_cast<std::byte*>(rows.data()), valid); }));
  }
}

}  // namespace
}  // namespace megatron_ext::testing

int main() {
  megatron_ext::testing::windows_share_their_edges_and_the_last_is_padded();
  megatron_ext::testing::permuted_windows_come_once_an_epoch();
  megatron_ext::testing::a_set_without_tokens_is_one_empty_row();
  megatron_ext::testing::the_index_of_samples_is_megatron_cores();
  megatron_ext::testing::arguments_of_the_index_are_checked();
  megatron_ext::testing::wild_arrays_of_megatron_order_stay_inside_of_the_file();
  megatron_ext::testing::batches_are_gathered_from_several_sources();
}
