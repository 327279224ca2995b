#include "bpe_merger.h"

#include <algorithm>
#include <cstddef>
#include <functional>

#include "checks.h"

namespace megatron_ext {
namespace {

constexpr std::size_t kFewSymbols = 64;
constexpr std::size_t kKeptCapacity = 1 << 16;

// Merges symbols of a long text in O(n log n): candidates wait in a heap, and those that another merge has
// overtaken are recognised when they come out.
class LongMerge {
 public:
  LongMerge(const BpeModel& model, std::vector<Symbol>& symbols) : model_(model), symbols_(symbols) {
    const auto size = static_cast<std::uint32_t>(symbols.size());
    nodes_.resize(size);
    for (std::uint32_t i = 0; i < size; ++i) {
      nodes_[i].previous = i - 1;  // of the first one: kNone
      nodes_[i].next = i + 1 < size ? i + 1 : kNone;
    }
    for (std::uint32_t i = 0; i + 1 < size; ++i) {
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
    for (std::uint32_t i = 0; i != kNone; i = nodes_[i].next) symbols_[kept++] = symbols_[i];
    symbols_.resize(kept);
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
    node.merge = node.next == kNone ? Merge{} : model_.merge(symbols_[left], symbols_[node.next]);
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
    symbols_[left] = node.merge.symbol;
    node.next = absorbed.next;
    absorbed.merge = Merge{};
    if (node.next != kNone) nodes_[node.next].previous = left;
    if (node.previous != kNone) add_candidate(node.previous);
    add_candidate(left);
  }

  const BpeModel& model_;
  std::vector<Symbol>& symbols_;
  std::vector<Node> nodes_;
  std::vector<std::uint64_t> heap_;
};

}  // namespace

void BpeMerger::encode(const std::uint8_t* text, const std::uint8_t* end, std::vector<std::uint32_t>& ids) {
  symbols_.clear();
  model_.append_symbols(text, end, symbols_);
  if (symbols_.size() <= kFewSymbols) {
    merge_few();
  } else {
    require_argument(symbols_.size() < ~std::uint32_t{0}, "a text of 2^32 characters without a boundary");
    LongMerge(model_, symbols_).run();
  }
  for (const Symbol symbol : symbols_) model_.append_ids(symbol, ids);
  if (symbols_.capacity() > kKeptCapacity) std::vector<Symbol>().swap(symbols_);
}

// Looks at every pair before each merge, which is the fastest way where there are few.
void BpeMerger::merge_few() {
  auto& symbols = symbols_;
  if (symbols.size() < 2) return;
  merges_.resize(symbols.size() - 1);
  for (std::size_t i = 0; i < merges_.size(); ++i) merges_[i] = model_.merge(symbols[i], symbols[i + 1]);
  while (!merges_.empty()) {
    const auto best = std::min_element(merges_.begin(), merges_.end(),
                                       [](const Merge& a, const Merge& b) { return a.rank < b.rank; });
    if (best->rank == Merge::kNever) break;
    const auto left = best - merges_.begin();
    symbols[static_cast<std::size_t>(left)] = best->symbol;
    symbols.erase(symbols.begin() + left + 1);
    merges_.erase(best);
    const auto update = [&](std::size_t i) { merges_[i] = model_.merge(symbols[i], symbols[i + 1]); };
    if (left > 0) update(static_cast<std::size_t>(left) - 1);
    if (static_cast<std::size_t>(left) < merges_.size()) update(static_cast<std::size_t>(left));
  }
}

}  // namespace megatron_ext
