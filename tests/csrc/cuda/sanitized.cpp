// SPDX-License-Identifier: Apache-2.0
//
// A program for sanitizers: steps of the CUDA kernels on the host over arrays of exactly their size,
// with weights edited in between. Exits with 1 where a step fails or leaves a number that is none.
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>

#include "common/dtypes.h"

namespace d3 {
using SanitizedDTypes =
    DTypeTriples<DTypeTriple<float, float, float>, DTypeTriple<Bf16, float, Bf16>>;
}
#define HOST_DTYPES SanitizedDTypes
#include "cuda_on_host.cpp"

namespace {

// Arrays of one column, each from an allocation of its own, so that a byte past it is noticed.
class Column {
 public:
  Column(const std::vector<int64_t>& sizes, const std::string& dtype, float scale, unsigned seed)
      : sizes_(sizes), width_(dtype == "float32" ? 4 : dtype == "float64" ? 8 : 2) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0, scale);
    for (const int64_t n : sizes) {
      arrays_.emplace_back(new char[n * width_]);
      addresses_.push_back(arrays_.back().get());
      for (int64_t i = 0; i < n; ++i) write(addresses_.back(), i, scale == 0 ? 0 : normal(random));
    }
  }

  void* const* data() const { return addresses_.data(); }

  void multiply(float factor) {
    for (size_t a = 0; a < sizes_.size(); ++a) {
      for (int64_t i = 0; i < sizes_[a]; ++i) write(addresses_[a], i, factor * read(a, i));
    }
  }

  bool is_finite() const {
    for (size_t a = 0; a < sizes_.size(); ++a) {
      for (int64_t i = 0; i < sizes_[a]; ++i) {
        if (!std::isfinite(read(a, i))) return false;
      }
    }
    return true;
  }

 private:
  float read(size_t a, int64_t i) const {
    const char* at = arrays_[a].get() + i * width_;
    if (width_ == 2) return widen(*reinterpret_cast<const Bf16*>(at));
    return *reinterpret_cast<const float*>(at);
  }
  void write(void* array, int64_t i, float value) const {
    char* at = static_cast<char*>(array) + i * width_;
    if (width_ == 2) *reinterpret_cast<Bf16*>(at) = narrow<Bf16>(value);
    if (width_ == 4) *reinterpret_cast<float*>(at) = value;
    if (width_ == 8) *reinterpret_cast<double*>(at) = value;
  }

  std::vector<int64_t> sizes_;
  int width_;
  std::vector<std::unique_ptr<char[]>> arrays_;
  std::vector<void*> addresses_;
};

struct Case {
  const char *weight, *momentum, *reference;
  bool joint_norm, nesterov;
  Center center;
  unsigned blocks, host_threads;
  bool in_parts;  // the step of a shard: an update, then a projection
};

bool run(const Case& c) {
  const std::vector<int64_t> sizes = {1, 0, 2101, 37, 640};
  const auto tensors = static_cast<int64_t>(sizes.size());
  const std::string weight = c.weight;
  Column theta(sizes, weight, 1, 1), reference(sizes, c.reference, 1, 2), grad(sizes, weight, 1, 3);
  Column momentum(sizes, c.momentum, 0, 0), compensation(sizes, weight, 0, 0);
  Column distance(std::vector<int64_t>(sizes.size(), 1), "float64", 0, 0);
  const std::vector<double> norms = {1, 0, 45, 6, 25};
  std::vector<int64_t> grads;
  HostGroup group = {};
  group.weight = c.weight;
  group.momentum_dtype = c.momentum;
  group.reference_dtype = c.reference;
  group.tensors = tensors;
  group.theta = theta.data();
  group.numel = sizes.data();
  group.compensation = is_half(weight) ? compensation.data() : nullptr;
  group.reference = reference.data();
  group.momentum = momentum.data();
  group.distance = reinterpret_cast<double* const*>(distance.data());
  const bool counts[] = {true, true, true, false, true};
  if (c.in_parts) group.whole = sizes.data(), group.counts = counts;
  group.reference_norms = norms.data();
  group.joint_norm = c.joint_norm;
  group.chunk_length = 200;
  group.lag = 3;
  std::vector<int64_t> memory(host_memory_bytes(group) / 8);
  group.memory = reinterpret_cast<char*>(memory.data());
  group.memory_size = static_cast<int64_t>(memory.size()) * 8;
  for (unsigned t = 0; t < 3; ++t) {
    grads.clear();
    for (int64_t i = 0; i < tensors; ++i) {
      grads.push_back(reinterpret_cast<int64_t>(grad.data()[i]));
      grads.push_back(t == 0);
    }
    if (t >= 2) theta.multiply(1.5f);  // stale norms
    const float scale = t == 1 ? 3 : 1, found_inf = 0;
    HostStep step = {};
    step.grads = grads.data();
    step.verify = t == 0;
    step.blocks = c.blocks;
    step.host_threads = c.host_threads;
    step.shuffle = t;
    step.lr = 0.05;
    step.lower = 0.9, step.upper = 0.95;
    step.grad_scale = &scale;
    step.found_inf = &found_inf;
    step.momentum = 0.9, step.weight_decay = 0.01;
    step.nesterov = c.nesterov;
    step.distance_weight = 1;
    step.p = 2;
    step.center = static_cast<int>(c.center);
    step.relative = true;
    std::vector<Phase> phases = {Phase::whole};
    if (c.in_parts) phases = {Phase::update, Phase::project};
    const std::unique_ptr<Sums[]> sums(new Sums[c.joint_norm ? 1 : tensors]);
    const double held[] = {0, 0};
    for (const Phase phase : phases) {
      step.phase = static_cast<int>(phase);
      step.sums = phase == Phase::update ? sums.get() : nullptr;
      step.totals = phase == Phase::project ? sums.get() : nullptr;
      step.held = phase == Phase::project ? held : nullptr;
      HostReport report;
      if (host_step(group, step, report) != 0 || !theta.is_finite()) return false;
    }
  }
  return true;
}

}  // namespace

int main() {
  const char *f32 = "float32", *bf16 = "bfloat16";
  const Case cases[] = {
      {f32, f32, f32, false, false, Center::origin, 5, 3},
      {f32, f32, f32, true, true, Center::none, 5, 2},
      {f32, f32, f32, true, false, Center::reference, 8, 2},
      {bf16, f32, bf16, true, false, Center::origin, 5, 3},
      {bf16, f32, bf16, false, true, Center::reference, 1, 1},
      {f32, f32, f32, false, false, Center::origin, 5, 3, true},
      {bf16, f32, bf16, true, false, Center::reference, 3, 2, true},
  };
  for (const Case& c : cases) {
    if (!run(c)) {
      std::printf("failed: %s %s %s\n", c.weight, c.momentum, c.reference);
      return 1;
    }
  }
  return 0;
}
