// SPDX-License-Identifier: Apache-2.0
//
// Cached norms that may be wrong: verified before a step, or noticed and corrected after it.
#pragma once

#include "cuda/reductions.cuh"

namespace d3 {

template <class DTypes>
__device__ inline bool stale(const NormGroup& group, double cached, double actual,
                             double weight_norm) {
  const double rounding = rounding_of_norm<typename DTypes::Weight>(weight_norm, group.elements);
  return is_stale<float>(cached, actual, rounding);
}

// Measures the norms before a step and stores those that `update` will use. Runs on overflow too:
// it moves no weight, and the host takes the norms as verified from here on.
template <class DTypes>
__global__ void __launch_bounds__(kThreads) verify_kernel(const DeviceStep step) {
  constexpr int N = kElements<DTypes>;
  const int64_t index = blockIdx.x;
  const Chunk& chunk = step.memory.chunks[index];
  const ChunkArrays<DTypes> a = arrays_of<DTypes>(step, chunk);
  Sums mine;
  for (int64_t at = N * static_cast<int64_t>(threadIdx.x); at < a.n; at += N * kThreads) {
    const Run<N> theta = a.template load_weights<true, Read::keep>(at);
    const Run<N> reference = a.template load<Read::keep>(a.reference, at);
    for (int k = 0; k < N; ++k) {
      const double delta = static_cast<double>(theta.x[k]) - static_cast<double>(reference.x[k]);
      mine.before += delta * delta;
    }
  }
  if (!completes_group(step, index, block_total(mine))) return;
  const NormGroup& group = step.memory.norm_groups[chunk.norm_group];
  const Sums sums = group_total(step, group);
  const double actual = sqrt(sums.before);
  const double cached =
      segment_norm(group, [&](int64_t i) { return *step.memory.segments[i].distance; });
  // A norm that is right keeps its bits: resuming from a checkpoint repeats the run exactly.
  const bool stale_norm = stale<DTypes>(group, cached, actual, reference_norm(step, group));
  const bool wrong = !(cached >= 0) || stale_norm;
  if (wrong) {
    each_segment(step, group, sums, [](const Segment& segment, const Sums& own) {
      *segment.distance = sqrt(own.before);
    });
  }
  if (threadIdx.x == 0) {
    step.memory.states[chunk.norm_group].cached_norm = wrong ? actual : cached;
  }
}

// Corrects all chunks of a norm group whose norm was stale. Rare, so it is left to the one block
// that noticed.
template <class DTypes, Momentum kMomentum>
__device__ Sums correct_group(const DeviceStep& step, const NormGroup& group, float stale,
                              float right) {
  using Weight = typename DTypes::Weight;
  constexpr bool kHalf = DTypeTraits<Weight>::kHalf;
  constexpr bool kBuffered = kMomentum != Momentum::none;
  const Scalars<float> s = scalars_of<float>(step.options, value_of(step.options.lr));
  for (int64_t i = group.first_chunk; i < group.first_chunk + group.chunks; ++i) {
    const Chunk& chunk = step.memory.chunks[i];
    const ChunkArrays<DTypes> a = arrays_of<DTypes>(step, chunk);
    const float rate = rate_of(step, chunk);
    Sums mine;
    // Other blocks wrote these arrays: past L1, element by element.
    const auto get = [](const auto* p) { return widen(read_one<Read::bypass_l1>(p)); };
    for (int64_t at = threadIdx.x; at < a.n; at += kThreads) {
      float v = 0, theta = get(a.theta + at);
      if constexpr (kBuffered) v = get(a.momentum + at);
      if constexpr (kHalf) theta = kahan_load<Weight>(theta, get(a.compensation + at));
      const float reference = widen(a.reference[at]);
      const float next = correct_stale_norm<float, kMomentum>(theta, reference, get(a.grad + at), v,
                                                              s, rate, stale, right);
      a.theta[at] = narrow<Weight>(next);
      if constexpr (kHalf) a.compensation[at] = narrow<Weight>(next - widen(narrow<Weight>(next)));
      if constexpr (kBuffered) a.momentum[at] = narrow<typename DTypes::MomentumBuffer>(v);
      accumulate(mine, theta, next, reference);
    }
    const Sums sums = block_total(mine);
    if (threadIdx.x == 0) step.memory.partial[i] = sums;
  }
  __threadfence();
  __syncthreads();
  return group_total(step, group);
}

}  // namespace d3
