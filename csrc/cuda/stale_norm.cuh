// SPDX-License-Identifier: Apache-2.0
//
// Cached norms that may be wrong: verified before a step, or noticed and corrected after it. A
// correction is spread over blocks: the one that notices lists the norm group, and blocks that
// would wait, for its projection or for the end of the launch, take chunks off the list. They take
// every chunk before they wait, so what is waited for is running already, however few blocks fit
// the GPU.
#pragma once

#include "cuda/batch.cuh"

namespace d3 {

template <class DTypes>
__device__ inline bool stale(const NormGroup& group, double cached, double actual,
                             double weight_norm) {
  const double rounding = rounding_of_norm<typename DTypes::Weight>(weight_norm, group.whole);
  return is_stale<float>(cached, actual, rounding);
}

// Measures ||theta - theta_0|| of one chunk; returns this thread's sums.
template <class DTypes>
D3_DEVICE Sums measure_chunk(ChunkArrays<DTypes, true, 0> a) {
  using Arrays = ChunkArrays<DTypes, true, 0>;
  constexpr int N = Arrays::N, U = 8 / N, kLength = 8 * kThreads;
  const int first = N * static_cast<int>(threadIdx.x);
  Sums sums;
  a.advance(first);
  for (int rest = a.n; rest > first; rest -= kLength, a.advance(kLength)) {
    WeightRuns<Arrays, U> weights;
    Packed<N, typename DTypes::Reference> reference[U];
    weights.template load<false, Read::keep>(a, rest - first);
    load_runs<false, Read::keep>(reference, a.reference, rest - first);
    RunSums few;
#pragma unroll
    for (int u = 0; u < U; ++u) {
      const Run<N> x = weights.get(u), theta_0 = widen_run(reference[u]);
#pragma unroll
      for (int k = 0; k < N; ++k) {
        if (u * N * kThreads + k < rest - first) few.add(x.x[k] - theta_0.x[k], 0, 0);
      }
    }
    few.add_to(sums);
  }
  return sums;
}

// Measures the norms before a step and stores those that the update will use. Runs on overflow too:
// it moves no weight, and the host takes the norms as verified from here on.
template <class DTypes>
__global__ void __launch_bounds__(kThreads, 4) verify_kernel(const DeviceStep step) {
  const StepOptions& o = step.options;
  if (!step.verify && !needs_verification(rule_of(o), value_of(o.lr), o.weight_decay)) return;
  for (int64_t index = blockIdx.x; index < step.chunks; index += gridDim.x) {
    const Chunk& chunk = step.memory.chunks[index];
    const Sums of_chunk = block_total(measure_chunk(ChunkArrays<DTypes, true, 0>(step, chunk)));
    Sums sums;
    if (!completes_group(step, index, of_chunk, sums)) continue;
    const NormGroup& group = step.memory.norm_groups[chunk.norm_group];
    const double actual = sqrt(sums.before);
    const double cached =
        segment_norm(group, [&](int64_t i) { return *step.memory.segments[i].distance; });
    // A norm that is right keeps its bits: resuming from a checkpoint repeats the run exactly.
    const bool stale_norm = stale<DTypes>(group, cached, actual, reference_norm(step, group));
    const bool wrong = !(cached >= 0) || stale_norm;
    __syncthreads();  // all have read the norms
    if (wrong) {
      each_segment(step, group, sums, [](const Segment& segment, const Sums& own) {
        *segment.distance = sqrt(own.before);
      });
    }
    if (threadIdx.x == 0) {
      step.memory.states[chunk.norm_group].cached_norm = wrong ? actual : cached;
    }
  }
}

// Lists a norm group for correction, by one thread.
__device__ inline void request_correction(const DeviceStep& step, int64_t norm_group, float stale,
                                          float right) {
  Correction& entry = step.memory.corrections[atomicAdd(&step.memory.queue->stale, 1u)];
  entry.stale = stale;
  entry.right = right;
  __threadfence();  // these, and what the group's blocks wrote, before the entry counts
  atomicExch(&entry.group, static_cast<unsigned>(norm_group) + 1);
}

// Takes a chunk off the list, by one thread: its index and, in entry, the one it belongs to; -1
// where there is none.
__device__ inline int64_t take_correction(const DeviceStep& step, const Correction*& entry) {
  for (;;) {
    const unsigned open = __ldcv(&step.memory.queue->open);
    Correction& listed = step.memory.corrections[open];
    const unsigned group_plus_one = __ldcv(&listed.group);
    if (group_plus_one == 0) return -1;
    const NormGroup& group = step.memory.norm_groups[group_plus_one - 1];
    const int64_t taken = atomicAdd(&listed.next, 1u);
    if (taken < group.chunks) {
      entry = &listed;
      return group.first_chunk + taken;
    }
    atomicMax(&step.memory.queue->open, open + 1);
  }
}

// Replaces the push of one chunk, made with `stale` in place of `right` (1 / D); returns this
// thread's sums. Other blocks wrote its arrays: past L1, and, rare as it is, element by element.
template <class DTypes, class Rule>
__device__ inline Sums correct_chunk(const DeviceStep& step, int64_t index, float stale,
                                     float right) {
  using Arrays = ChunkArrays<DTypes, true, Rule::kStates>;
  using Weight = typename DTypes::Weight;
  const Chunk& chunk = step.memory.chunks[index];
  const Rule rule(step, chunk);
  const Arrays a(step, chunk);
  const auto get = [](const auto* p) { return widen(read_one<Read::bypass_l1>(p)); };
  Sums sums;
#pragma unroll 1
  for (int at = static_cast<int>(threadIdx.x); at < a.n; at += kThreads) {
    float theta = get(a.theta + at);
    Buffers<float> b;
    if constexpr (Arrays::kCompensated) {
      theta = kahan_load<Weight>(theta, get(a.compensation + at));
    }
    if constexpr (Rule::kStates > 0) b.momentum = get(a.momentum + at);
    if constexpr (Rule::kStates > 1) b.variance = get(a.variance + at);
    const float theta_0 = widen(a.reference[at]);
    const float next = rule.correct(theta, theta_0, get(a.grad + at), b, stale, right);
    const Weight stored = narrow<Weight>(next);
    a.theta[at] = stored;
    if constexpr (Arrays::kCompensated) {
      a.compensation[at] = narrow<Weight>(next - widen(stored));
    }
    if constexpr (Rule::kStates > 0) {
      a.momentum[at] = narrow<typename DTypes::MomentumBuffer>(b.momentum);
    }
    if constexpr (Rule::kStates > 1) a.variance[at] = b.variance;
    RunSums one;
    one.add(theta - theta_0, next - theta_0, next);
    one.add_to(sums);
  }
  return sums;
}

// Zeroes the list, by the last block of a launch.
__device__ inline void clear_corrections(const DeviceStep& step) {
  Queue& queue = *step.memory.queue;
  for (unsigned i = 0; i < __ldcv(&queue.stale); ++i) step.memory.corrections[i] = {};
  queue.stale = 0;
  queue.open = 0;
}

}  // namespace d3
