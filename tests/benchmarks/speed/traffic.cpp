// SPDX-License-Identifier: Apache-2.0
//
// The CPU step with counters around its kernels: the memory it reads and writes, in bytes and in
// order, and how often it wakes other cores. Linked with csrc/cpu/launch.cpp in place of
// simd_level.cpp and parallel.cpp.
#include <algorithm>
#include <map>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/launch.h"
#include "cpu/parallel.h"

namespace d3 {

const AllKernels& kernels_baseline();

namespace {

using Counted = DTypeTriple<float, float, float>;

const Kernels<Counted>& real_kernels() { return kernels_baseline(); }

struct Traffic {
  int64_t update = 0, correct = 0, verify = 0, rescale = 0, unscale = 0;  // bytes
  int64_t reuse = 0;  // the most bytes moved between a chunk's update and its rescaling
  int64_t teams = 0;  // how often the other cores were woken
};

Traffic traffic;
int64_t moved = 0;
std::map<const void*, int64_t> updated_at;

void move(int64_t& kind, int64_t bytes) {
  kind += bytes;
  moved += bytes;
}

// Arrays read and written once per element: theta, gradient, momentum, reference.
int64_t bytes_of(const ChunkArrays<Counted>& a, UpdateRule rule, bool reference) {
  const int64_t arrays = 3 + (rule == UpdateRule::sgd ? 0 : 2) + (reference ? 1 : 0);
  return arrays * static_cast<int64_t>(sizeof(float)) * a.n;
}

const Kernels<Counted> counted = {
    [](const ChunkArrays<Counted>& a, Tracking tracking, UpdateRule rule, const Scalars<float>& s,
       const Rates<float>& rate, float inverse) {
      move(traffic.update, bytes_of(a, rule, tracking != Tracking::none));
      updated_at[a.theta] = moved;
      return real_kernels().update(a, tracking, rule, s, rate, inverse);
    },
    [](const ChunkArrays<Counted>& a, UpdateRule rule, const Scalars<float>& s,
       const Rates<float>& rate, float stale, float right) {
      move(traffic.correct, bytes_of(a, rule, true));
      return real_kernels().correct_stale_norm(a, rule, s, rate, stale, right);
    },
    [](const ChunkArrays<Counted>& a) {
      move(traffic.verify, 8 * a.n);
      return real_kernels().squared_distance(a);
    },
    [](const ChunkArrays<Counted>& a, Center center, float c) {
      traffic.reuse = std::max(traffic.reuse, moved - updated_at[a.theta]);
      move(traffic.rescale, (center == Center::origin ? 8 : 12) * a.n);
      real_kernels().rescale(a, center, c);
    },
    [](const ChunkArrays<Counted>& a, float scale) {
      move(traffic.unscale, 8 * a.n);
      real_kernels().unscale(a, scale);
    },
};

}  // namespace

const AllKernels& kernels() {
  static const AllKernels all = [] {
    AllKernels made = kernels_baseline();
    static_cast<Kernels<Counted>&>(made) = counted;
    return made;
  }();
  return all;
}

// One thread takes all tasks: the order is that of the task numbers.
void run_team(int, void (*body)(void*), void* context) {
  ++traffic.teams;
  body(context);
}

}  // namespace d3

extern "C" int64_t cpu_chunk() { return d3::kCpuChunk; }

// Takes one step; scalars: lr, momentum, distance_weight, lower, upper. counts: [7], as Traffic.
extern "C" void count_traffic(int64_t n, void** theta, const void** reference, void** momentum,
                              double** distance, void** grads, const int64_t* numel,
                              const double* reference_norms, bool joint_norm, bool verify,
                              int center, const double* scalars, int64_t* counts) {
  using namespace d3;
  std::vector<Segment> segments(n);
  for (int64_t i = 0; i < n; ++i) {
    segments[i].theta = theta[i];
    segments[i].reference = reference ? reference[i] : nullptr;
    segments[i].momentum = momentum ? momentum[i] : nullptr;
    segments[i].distance = distance ? distance[i] : nullptr;
    segments[i].numel = numel[i];
  }
  const Partition partition = make_partition(std::move(segments), joint_norm, kCpuChunk);
  const std::vector<char> first_step(n, 0);
  CpuStep step;
  step.partition = &partition;
  step.reference_norms = reference_norms;
  step.grads = grads;
  step.first_step = reinterpret_cast<const bool*>(first_step.data());
  step.verify = verify;
  step.threads = 2;
  step.options.lr.value = scalars[0];
  step.options.momentum = scalars[1];
  step.options.distance_weight = scalars[2];
  step.options.center = static_cast<Center>(center);
  step.options.lower.value = scalars[3];
  step.options.upper.value = scalars[4];
  traffic = {};
  moved = 0;
  updated_at.clear();
  cpu_launch({"float32", "float32", "float32"})(step);
  const int64_t all[] = {traffic.update,  traffic.correct, traffic.verify, traffic.rescale,
                         traffic.unscale, traffic.reuse,   traffic.teams};
  std::copy(std::begin(all), std::end(all), counts);
}
