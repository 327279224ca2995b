#include "bpe_merger.h"

#include <algorithm>
#include <functional>
#include <limits>

#include "checks.h"

namespace megatron_ext {
namespace {

constexpr std::size_t kFewTokens = 64;
constexpr std::size_t kBlockTokens = 256;  // more make a slower queue, fewer make more boundaries to check
constexpr std::size_t kKeptCapacity = 1 << 16;

// Merges many tokens in O(n log n): candidates wait in a heap, and those that another merge has overtaken are
// recognised when they come out.
class HeapMerge {
 public:
  HeapMerge(const BpeModel& model, BpeMerger::Tokens& tokens) : model_(model), tokens_(tokens) {
    const auto size = static_cast<std::uint32_t>(tokens.size());
    nodes_.resize(size);
    for (std::uint32_t i = 0; i < size; ++i) {
      nodes_[i].previous = i - 1;  // of the first one: kNone
      nodes_[i].next = i + 1 < size ? i + 1 : kNone;
    }
    for (std::uint32_t i = 0; i < size; ++i) {
      if (find_merge(i)) heap_.push_back(candidate(i));
    }
    std::make_heap(heap_.begin(), heap_.end(), std::greater<>());
  }

  void run() {
    while (!heap_.empty()) {
      std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
      const auto best = heap_.back();
      heap_.pop_back();
      const auto left = static_cast<std::uint32_t>(best);
      if (candidate(left) == best) apply(left);
    }
    std::size_t kept = 0;
    for (std::uint32_t i = 0; i != kNone; i = nodes_[i].next) tokens_[kept++] = tokens_[i];
    tokens_.resize(kept);
  }

 private:
  static constexpr std::uint32_t kNone = ~std::uint32_t{0};

  struct Node {
    std::uint32_t previous, next;
    Merge merge;  // with the next one
  };

  // Sorts by rank, then from left to right.
  std::uint64_t candidate(std::uint32_t left) const {
    return std::uint64_t{nodes_[left].merge.rank} << 32 | left;
  }

  bool find_merge(std::uint32_t left) {
    Node& node = nodes_[left];
    node.merge = node.next == kNone ? Merge{} : model_.merge(tokens_[left].symbol, tokens_[node.next].symbol);
    return node.merge.rank != Merge::kNever;
  }

  void add_candidate(std::uint32_t left) {
    if (!find_merge(left)) return;
    heap_.push_back(candidate(left));
    std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
  }

  void apply(std::uint32_t left) {
    Node& node = nodes_[left];
    Node& absorbed = nodes_[node.next];
    tokens_[left].symbol = node.merge.symbol;
    node.next = absorbed.next;
    absorbed.merge = Merge{};
    if (node.next != kNone) nodes_[node.next].previous = left;
    if (node.previous != kNone) add_candidate(node.previous);
    add_candidate(left);
  }

  const BpeModel& model_;
  BpeMerger::Tokens& tokens_;
  std::vector<Node> nodes_;
  std::vector<std::uint64_t> heap_;
};

void release_if_large(BpeMerger::Tokens& tokens) {
  if (tokens.capacity() > kKeptCapacity) BpeMerger::Tokens().swap(tokens);
}

}  // namespace

// Long text is merged block by block. Where two blocks meet, their tokens stand if the last of the one and
// the first of the other, merged by themselves, come out as they are. For let a merge cross the boundary, and
// take the first that does: until then both sides went as they go alone, so it joins an end of that last
// token to a start of that first one; and these two, being left alone by their own neighbours, do then what
// they do by themselves. Where they do not stand, the block takes tokens back from what is done, and is
// merged again.
void BpeMerger::encode(const std::uint8_t* text, const std::uint8_t* end, std::vector<std::uint32_t>& ids) {
  constexpr auto kMaxSize = std::numeric_limits<std::uint32_t>::max();
  require_argument(end - text <= kMaxSize, "more than 4 GiB of text without a boundary");
  text_ = text;
  size_ = static_cast<std::uint32_t>(end - text);
  done_.clear();
  for (std::uint32_t position = 0; position < size_;) {
    block_.clear();
    const auto block_end = read(position, size_, kBlockTokens, block_);
    merge(block_);
    for (std::size_t taken = 1; !is_boundary(block_end); taken *= 2) {
      const auto kept = done_.size() - std::min(taken, done_.size());
      const auto start = done_[kept].start;
      done_.resize(kept);
      block_.clear();
      read(start, block_end, kMaxSize, block_);
      merge(block_);
    }
    done_.insert(done_.end(), block_.begin(), block_.end());
    position = block_end;
  }
  for (const Token& token : done_) model_.append_ids(token.symbol, ids);
  release_if_large(done_);
  release_if_large(block_);
}

// Appends what merging starts from: from `start` to `end`, but not more than `max_tokens`. Returns where it
// ends.
std::uint32_t BpeMerger::read(std::uint32_t start, std::uint32_t end, std::size_t max_tokens,
                              Tokens& tokens) const {
  const auto* position = text_ + start;
  while (position < text_ + end && tokens.size() < max_tokens) {
    const auto token_start = static_cast<std::uint32_t>(position - text_);
    tokens.push_back({model_.next_symbol(position, text_ + size_), token_start});
  }
  return static_cast<std::uint32_t>(position - text_);
}

// Whether the block's tokens stand behind those that are done.
bool BpeMerger::is_boundary(std::uint32_t block_end) {
  if (done_.empty()) return true;
  const auto first_end = block_.size() > 1 ? block_[1].start : block_end;
  pair_.clear();
  read(done_.back().start, first_end, first_end, pair_);
  merge(pair_);
  return pair_.size() == 2 && pair_[1].start == block_[0].start;
}

void BpeMerger::merge(Tokens& tokens) {
  if (tokens.size() > kFewTokens) return HeapMerge(model_, tokens).run();
  merge_few(tokens);
}

// Looks at every pair before each merge, which is the fastest way where there are few.
void BpeMerger::merge_few(Tokens& tokens) {
  if (tokens.size() < 2) return;
  const auto merge_at = [&](std::size_t i) { return model_.merge(tokens[i].symbol, tokens[i + 1].symbol); };
  merges_.resize(tokens.size() - 1);
  for (std::size_t i = 0; i < merges_.size(); ++i) merges_[i] = merge_at(i);
  while (!merges_.empty()) {
    const auto best = std::min_element(merges_.begin(), merges_.end(),
                                       [](const Merge& a, const Merge& b) { return a.rank < b.rank; });
    if (best->rank == Merge::kNever) break;
    const auto left = static_cast<std::size_t>(best - merges_.begin());
    tokens[left].symbol = best->symbol;
    tokens.erase(tokens.begin() + static_cast<std::ptrdiff_t>(left) + 1);
    merges_.erase(best);
    if (left > 0) merges_[left - 1] = merge_at(left - 1);
    if (left < merges_.size()) merges_[left] = merge_at(left);
  }
}

}  // namespace megatron_ext
