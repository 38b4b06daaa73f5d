// SPDX-License-Identifier: Apache-2.0
//
// The update of the CUDA backend. A block processes one chunk at a time. The block that completes a
// norm group (a counter tells which) checks the cached norm, corrects the step where it was stale,
// and decides the projection, which projection.cuh carries out in the same launch. The host reads
// nothing back.
#pragma once

#include "cuda/stale_norm.cuh"

namespace d3 {

__device__ inline Bounds bounds_of(const DeviceStep& step, const NormGroup& group) {
  const StepOptions& o = step.options;
  if (o.center == Center::none) return Bounds();
  const double unit = o.relative ? reference_norm(step, group) : 1.0;
  return bounds_of(o, value_of(o.lower), value_of(o.upper), unit);
}

// By the last block of a norm group: check the cached norm, decide the projection, store the norm.
template <class DTypes, Tracking kTracking, Momentum kMomentum>
__device__ void finish_group(const DeviceStep& step, int64_t index) {
  const NormGroup& group = step.memory.norm_groups[index];
  GroupState& state = step.memory.states[index];
  Sums sums = group_total(step, group);
  if constexpr (kTracking == Tracking::pushed_p2) {
    const double cached = state.cached_norm, actual = sqrt(sums.before);
    const double lr = value_of(step.options.lr);
    // Where the update cannot be undone the norm was verified before it.
    if (!needs_verification(kMomentum, lr, step.options.weight_decay) &&
        stale<DTypes>(group, cached, actual, sqrt(sums.weight))) {
      sums = correct_group<DTypes, kMomentum>(step, group, inverse_distance<float>(cached),
                                              inverse_distance<float>(actual));
    }
  }
  const Bounds bounds = bounds_of(step, group);
  const double c = projection_coefficient<float>(bounds, sums);
  Sums stored;
  if (step.options.p == 2) {
    each_segment(step, group, sums, [&](const Segment& segment, const Sums& own) {
      const double distance = distance_after(bounds.center, c, own);
      *segment.distance = distance;
      stored.before += distance * distance;
    });
  }
  const double cached_norm = sqrt(block_total(stored).before);
  if (threadIdx.x == 0) {
    state.cached_norm = cached_norm;
    state.c = c;
    if (bounds.center != Center::none) {
      __threadfence();  // c, and all that the other blocks wrote, before the flag
      atomicExch(&state.ready, 1u);
    }
  }
}

// The step of one chunk without its projection, by a whole block.
template <class DTypes, Tracking kTracking, Momentum kMomentum>
__device__ inline void update_chunk(const DeviceStep& step, int64_t index) {
  using Weight = typename DTypes::Weight;
  constexpr bool kTracked = kTracking != Tracking::none;
  constexpr bool kBuffered = kMomentum != Momentum::none;
  constexpr Push kPush = push_of(kTracking);
  constexpr int N = kElements<DTypes>, kUnroll = 8 / N;
  const Chunk& chunk = step.memory.chunks[index];
  const ChunkArrays<DTypes> a = arrays_of<DTypes>(step, chunk);
  const Scalars<float> s = scalars_of<float>(step.options, value_of(step.options.lr));
  const float rate = rate_of(step, chunk);
  const float scale = step.grad_scale ? *step.grad_scale : 1.0f;
  float inverse = 0;
  if constexpr (kPush == Push::p2) {
    inverse = inverse_distance<float>(step.memory.states[chunk.norm_group].cached_norm);
  }
  Sums mine;
#pragma unroll kUnroll
  for (int64_t at = N * static_cast<int64_t>(threadIdx.x); at < a.n; at += N * kThreads) {
    Run<N> theta = a.template load_weights<kTracked, Read::keep>(at);
    Run<N> grad = a.template load<Read::stream>(a.grad, at);
    Run<N> reference = {}, v = {};
    if constexpr (kTracked) reference = a.template load<Read::stream>(a.reference, at);
    if constexpr (kBuffered) v = a.template load<Read::stream>(a.momentum, at);
    for (int k = 0; k < N; ++k) {
      const float before = theta.x[k];
      if (scale != 1.0f) grad.x[k] = widen(narrow<Weight>(grad.x[k] / scale));  // as it is stored
      theta.x[k] = update_element<float, kPush, kMomentum>(before, before - reference.x[k],
                                                           grad.x[k], v.x[k], s, rate, inverse);
      if constexpr (kTracked) {
        if (at + k < a.n) accumulate(mine, before, theta.x[k], reference.x[k]);
      }
    }
    a.template store_weights<kTracked>(at, theta);
    if constexpr (kBuffered) a.store(a.momentum, at, v);
    if (scale != 1.0f) a.store(a.grad, at, grad);
  }
  if constexpr (kTracked) {
    __threadfence();  // whoever corrects or projects must see what this thread wrote
    if (completes_group(step, index, block_total(mine))) {
      finish_group<DTypes, kTracking, kMomentum>(step, chunk.norm_group);
    }
  }
}

// A step without projection, one block per chunk. With a minimum of two blocks per SM the compiler
// uses the 80 registers it needs, of which three blocks fit; without it, it spills.
template <class DTypes, Tracking kTracking, Momentum kMomentum>
__global__ void __launch_bounds__(kThreads, 2) update_kernel(const DeviceStep step) {
  if (skipped(step)) return;
  update_chunk<DTypes, kTracking, kMomentum>(step, blockIdx.x);
}

}  // namespace d3
