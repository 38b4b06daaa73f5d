// SPDX-License-Identifier: Apache-2.0
//
// A program for sanitizers: steps of the CPU kernels on several threads over arrays of exactly
// their size, whole and in the parts of a shard's, with weights edited in between. Exits with 1
// where a step leaves a number that is none.
#include <cmath>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "common/dtypes.h"
#include "common/partition.h"
#include "cpu/launch.h"

using namespace d3;

namespace {

template <class Stored>
std::vector<std::vector<Stored>> column(const std::vector<int64_t>& sizes, double scale) {
  static std::mt19937 random(1);
  std::normal_distribution<double> normal(0, 1);
  std::vector<std::vector<Stored>> arrays;
  for (const int64_t n : sizes) {
    arrays.emplace_back(n);
    for (Stored& x : arrays.back()) {
      x = narrow<Stored>(static_cast<typename DTypeTraits<Stored>::Real>(scale * normal(random)));
    }
  }
  return arrays;
}

struct Case {
  bool joint_norm;
  Center center;
  double momentum;
  bool nesterov;
  int threads;
};

template <class DTypes>
bool run(const Case& c) {
  using Weight = typename DTypes::Weight;
  constexpr bool kHalf = DTypeTraits<Weight>::kHalf;
  const std::vector<int64_t> sizes = {1, 0, 37, 140'001, 33'000, 5};
  auto theta = column<Weight>(sizes, 1), compensation = column<Weight>(sizes, 0);
  auto grad = column<Weight>(sizes, 1);
  auto reference = column<typename DTypes::Reference>(sizes, 1);
  auto momentum = column<typename DTypes::MomentumBuffer>(sizes, 0);
  std::vector<double> distances(sizes.size(), 0), norms(sizes.size(), 7);
  std::vector<Segment> segments(sizes.size());
  std::vector<void*> grads;
  for (size_t i = 0; i < sizes.size(); ++i) {
    segments[i].theta = theta[i].data();
    segments[i].compensation = kHalf ? compensation[i].data() : nullptr;
    static double nothing;  // an empty tensor has no storage, but its group has the column
    segments[i].reference = sizes[i] ? static_cast<const void*>(reference[i].data()) : &nothing;
    segments[i].momentum = momentum[i].data();
    segments[i].distance = &distances[i];
    segments[i].numel = segments[i].whole = sizes[i];
    grads.push_back(grad[i].data());
  }
  const Partition partition = make_partition(std::move(segments), c.joint_norm, kCpuChunk);
  const DTypeNames names = {DTypeTraits<Weight>::kName,
                            DTypeTraits<typename DTypes::MomentumBuffer>::kName,
                            DTypeTraits<typename DTypes::Reference>::kName};
  const bool first_step[] = {true, true, true, true, true, true};
  const bool later[] = {false, false, false, false, false, false};
  const std::vector<Phase> whole = {Phase::whole};
  const std::vector<Phase> parts = {Phase::update, Phase::correct, Phase::project};
  std::vector<Sums> sums(partition.norm_groups.size()), totals(sums.size());
  for (int t = 0; t < 6; ++t) {
    if (t == 2 || t == 4) {
      for (auto& array : theta) {
        for (Weight& x : array) x = narrow<Weight>(2 * widen(x));  // stale norms
      }
    }
    CpuStep step;
    step.partition = &partition;
    step.reference_norms = norms.data();
    step.grads = grads.data();
    step.first_step = t == 0 ? first_step : later;
    step.verify = t == 0;
    step.threads = c.threads;
    step.grad_scale = t == 1 ? 3 : 1;
    step.options.lr.value = 0.05;
    step.options.momentum = c.momentum;
    step.options.nesterov = c.nesterov;
    step.options.weight_decay = 0.01;
    step.options.distance_weight = 1;
    step.options.center = c.center;
    step.options.lower.value = 0.9, step.options.upper.value = 0.95;
    step.options.relative = true;
    step.sums = sums.data();
    step.totals = totals.data();
    for (const Phase phase : t < 3 ? whole : parts) {
      step.phase = phase;
      cpu_launch(names)(step);
      totals = sums;  // those of the only rank
    }
  }
  for (const auto& array : theta) {
    for (const Weight& x : array) {
      if (!std::isfinite(widen(x))) return false;
    }
  }
  return true;
}

}  // namespace

int main() {
  const Case cases[] = {
      {false, Center::origin, 0.9, false, 4},
      {true, Center::reference, 0.9, true, 3},
      {true, Center::none, 0, false, 2},
  };
  for (const Case& c : cases) {
    const bool fine = run<DTypeTriple<float, float, float>>(c) &&
                      run<DTypeTriple<double, double, double>>(c) &&
                      run<DTypeTriple<Bf16, float, Bf16>>(c) && run<DTypeTriple<F16, F16, F16>>(c);
    if (!fine) return 1;
  }
  std::puts("fine");
  return 0;
}
