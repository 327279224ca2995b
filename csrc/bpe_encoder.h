// Encodes as sentencepiece does with a BPE model, id for id, and faster.
//
// A boundary between two characters that no piece holds side by side is never crossed by a merge, and the two
// sides have no influence on each other. So text is cut there, which is exact in every language, and most of
// the chunks have been seen before.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "bpe_merger.h"
#include "bpe_model.h"
#include "chunk_memo.h"
#include "text_encoder.h"

namespace megatron_ext {

class BpeEncoder : public TextEncoder {
 public:
  explicit BpeEncoder(std::shared_ptr<const BpeModel> model)
      : model_(std::move(model)), merger_(*model_), chunk_ends_(kBatch), lookups_(kBatch) {}

  void encode(std::string_view text, std::vector<std::uint32_t>& ids) override;
  std::unique_ptr<TextEncoder> clone() const override { return std::make_unique<BpeEncoder>(model_); }

 private:
  static constexpr std::size_t kBatch = 64;  // chunks that are looked up together

  using ShortMemo = ChunkMemo<2, 3, (1 << 18)>;  // 8 MiB: 98 chunks in 100
  using LongMemo = ChunkMemo<8, 15, (1 << 16)>;  // 8 MiB: nearly all others

  struct Lookup {
    ShortMemo::Key key;
    std::size_t home;
  };

  void load(std::string_view text);
  std::size_t cut(const std::uint8_t*& position, const std::uint8_t* end);
  void encode_chunks(const std::uint8_t* start, std::size_t count, std::vector<std::uint32_t>& ids);
  void prepare_lookups(const std::uint8_t* start, std::size_t count);
  std::size_t append_known(std::size_t first, std::size_t count, std::vector<std::uint32_t>& ids) const;
  void encode_chunk(const std::uint8_t* chunk, const std::uint8_t* end, std::vector<std::uint32_t>& ids);

  std::shared_ptr<const BpeModel> model_;
  BpeMerger merger_;
  ShortMemo short_memo_;
  LongMemo long_memo_;
  std::vector<std::uint8_t> text_;  // the document, valid, with its dummy prefix and padding
  std::size_t text_size_ = 0;
  std::vector<const std::uint8_t*> chunk_ends_;
  std::vector<Lookup> lookups_;
};

}  // namespace megatron_ext
