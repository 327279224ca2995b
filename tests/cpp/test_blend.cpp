#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <stdexcept>

#include "blend.h"
#include "testing.h"

namespace megatron_ext::testing {
namespace {

using Draws = std::vector<std::pair<std::int32_t, std::int64_t>>;

// megatron-core's rule as it is written down: the dataset that lags most, the first of equals.
Draws drawn_by_the_rule(const std::vector<double>& weights, std::int64_t count) {
  std::vector<std::int64_t> counts(weights.size());
  Draws draws;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto time = static_cast<double>(std::max<std::int64_t>(i, 1));
    std::size_t best = 0;
    double largest = -std::numeric_limits<double>::infinity();
    for (std::size_t k = 0; k < weights.size(); ++k) {
      const double error = weights[k] * time - static_cast<double>(counts[k]);
      if (error > largest) {
        largest = error;
        best = k;
      }
    }
    draws.emplace_back(static_cast<std::int32_t>(best), counts[best]++);
  }
  return draws;
}

Draws drawn(Blend& blend, std::int64_t count) {
  std::vector<std::int32_t> datasets(static_cast<std::size_t>(count));
  std::vector<std::int64_t> samples(datasets.size());
  blend.draw(count, datasets.data(), samples.data());
  Draws draws;
  for (std::size_t i = 0; i < datasets.size(); ++i) draws.emplace_back(datasets[i], samples[i]);
  return draws;
}

std::vector<double> some_weights(std::size_t count) {
  std::mt19937_64 random(count);
  std::vector<double> weights;
  double total = 0;
  for (std::size_t i = 0; i < count; ++i) {
    weights.push_back(std::exp(static_cast<double>(random() % 1000) / 100.0));
    total += weights.back();
  }
  for (double& weight : weights) weight /= total;
  return weights;
}

void every_instruction_set_draws_by_the_rule() {
  for (const std::size_t count : {1u, 2u, 7u, 8u, 32u, 33u, 64u, 546u}) {
    for (const auto& weights :
         {some_weights(count), std::vector<double>(count, 1.0 / static_cast<double>(count))}) {
      const Draws expected = drawn_by_the_rule(weights, 5000);
      for (const auto* scan : blend_scans()) {
        Blend blend(weights, scan->name);
        Draws draws = drawn(blend, 1);
        for (const auto& draw : drawn(blend, 4999)) draws.push_back(draw);
        CHECK(draws == expected);
        CHECK(blend.position() == 5000);
      }
    }
  }
}

void a_position_is_reached_by_seeking_and_by_counts() {
  const auto weights = some_weights(100);
  Blend straight(weights), sought(weights), restored(weights);
  drawn(straight, 3001);
  sought.seek(5000);
  sought.seek(3001);
  std::vector<std::int64_t> counts;
  for (std::int64_t i = 0; i < 100; ++i) counts.push_back(straight.count(i));
  restored.restore(3001, counts);
  const Draws expected = drawn(straight, 500);
  CHECK(drawn(sought, 500) == expected && drawn(restored, 500) == expected);
}

void what_is_no_blend_is_refused() {
  const double infinite = std::numeric_limits<double>::infinity();
  for (const auto& weights : {std::vector<double>{}, {0.0}, {1.0, -1.0}, {std::nan("")}, {infinite}}) {
    CHECK(throws<std::invalid_argument>([&] { Blend{weights}; }));
  }
  CHECK(throws<std::invalid_argument>([] { Blend({1.0}, "no such set"); }));
  Blend blend({0.5, 0.5});
  CHECK(throws<std::invalid_argument>([&] { blend.seek(-1); }));
  const std::vector<std::vector<std::int64_t>> counts = {
      {1}, {1, 2}, {-1, 4}, {INT64_MAX, INT64_MAX}, {1, 1, 1}};
  for (const auto& wrong : counts) CHECK(throws<std::invalid_argument>([&] { blend.restore(2, wrong); }));
  CHECK(throws<std::invalid_argument>([&] { blend.count(2); }));
  CHECK(blend.position() == 0);
}

}  // namespace
}  // namespace megatron_ext::testing

int main() {
  megatron_ext::testing::every_instruction_set_draws_by_the_rule();
  megatron_ext::testing::a_position_is_reached_by_seeking_and_by_counts();
  megatron_ext::testing::what_is_no_blend_is_refused();
}
