// SPDX-License-Identifier: Apache-2.0
//
// The CPU step with its sweeps behind a counter: what it asks of memory, in bytes and in order, and
// how often it wakes other cores. Linked with csrc/cpu/step.cpp in place of sweeps.cpp and
// parallel.cpp.
#include <algorithm>
#include <map>
#include <vector>

#include "cpu/parallel.h"
#include "cpu/step.h"
#include "cpu/sweeps.h"

namespace d3 {

const AllSweeps& sweeps_baseline();

namespace {

using K = Storage<float, float, float>;  // what is counted

const Sweeps<K>& real_sweeps() { return sweeps_baseline(); }

struct Traffic {
  int64_t update = 0, mend = 0, verify = 0, rescale = 0, unscale = 0;  // bytes
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
int64_t bytes_of(const Span<K>& a, Momentum momentum, bool reference) {
  const int64_t arrays = 3 + (momentum == Momentum::none ? 0 : 2) + (reference ? 1 : 0);
  return arrays * static_cast<int64_t>(sizeof(float)) * a.n;
}

const Sweeps<K> counted = {
    [](const Span<K>& a, Tracking tracking, Momentum momentum, const Scalars<float>& s, float rate,
       float inverse) {
      move(traffic.update, bytes_of(a, momentum, tracking != Tracking::none));
      updated_at[a.theta] = moved;
      return real_sweeps().update(a, tracking, momentum, s, rate, inverse);
    },
    [](const Span<K>& a, Momentum momentum, const Scalars<float>& s, float rate, float stale,
       float right) {
      move(traffic.mend, bytes_of(a, momentum, true));
      return real_sweeps().mend(a, momentum, s, rate, stale, right);
    },
    [](const Span<K>& a) {
      move(traffic.verify, 8 * a.n);
      return real_sweeps().squared_distance(a);
    },
    [](const Span<K>& a, Center center, float c) {
      traffic.reuse = std::max(traffic.reuse, moved - updated_at[a.theta]);
      move(traffic.rescale, (center == Center::origin ? 8 : 12) * a.n);
      real_sweeps().rescale(a, center, c);
    },
    [](const Span<K>& a, float scale) {
      move(traffic.unscale, 8 * a.n);
      real_sweeps().unscale(a, scale);
    },
};

}  // namespace

const AllSweeps& sweeps() {
  static const AllSweeps all = [] {
    AllSweeps made = sweeps_baseline();
    static_cast<Sweeps<K>&>(made) = counted;
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
                              const double* reference_norms, bool joint, bool verify, int center,
                              const double* scalars, int64_t* counts) {
  using namespace d3;
  std::vector<Segment> segments(n);
  for (int64_t i = 0; i < n; ++i) {
    segments[i].theta = theta[i];
    segments[i].reference = reference ? reference[i] : nullptr;
    segments[i].momentum = momentum ? momentum[i] : nullptr;
    segments[i].distance = distance ? distance[i] : nullptr;
    segments[i].numel = numel[i];
  }
  const Cut whole = cut(std::move(segments), joint, kCpuChunk);
  const std::vector<char> fresh(n, 0);
  CpuStep step;
  step.cut = &whole;
  step.reference_norms = reference_norms;
  step.grads = grads;
  step.fresh = reinterpret_cast<const bool*>(fresh.data());
  step.verify = verify;
  step.threads = 2;
  step.options.lr = scalars[0];
  step.options.momentum = scalars[1];
  step.options.distance_weight = scalars[2];
  step.options.center = center;
  step.options.lower = scalars[3];
  step.options.upper = scalars[4];
  traffic = {};
  moved = 0;
  updated_at.clear();
  cpu_stepper({"float32", "float32", "float32"})(step);
  const int64_t all[] = {traffic.update,  traffic.mend,  traffic.verify, traffic.rescale,
                         traffic.unscale, traffic.reuse, traffic.teams};
  std::copy(std::begin(all), std::end(all), counts);
}
