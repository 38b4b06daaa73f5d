// SPDX-License-Identifier: Apache-2.0
//
// What the sums of a norm group decide: its projection, and its cached norm after it.
#pragma once

#include "cuda/reductions.cuh"

namespace d3 {

// norm(): ||theta_0|| of the norm group, called where the bounds are relative to it.
template <class Norm>
__device__ inline Bounds bounds_of(const DeviceStep& step, const Norm& norm) {
  const StepOptions& o = step.options;
  if (o.center == Center::none) return Bounds();
  return bounds_of(o, value_of(o.lower), value_of(o.upper), o.relative ? norm() : 1.0);
}

// Stores the norms as they will be after the projection, then tells all blocks its coefficient. By
// the block that completes the norm group.
__device__ inline void decide_projection(const DeviceStep& step, int64_t index, const Sums& sums) {
  const NormGroup& group = step.memory.norm_groups[index];
  GroupState& state = step.memory.states[index];
  const Bounds bounds = bounds_of(step, [&] { return reference_norm(step, group); });
  const double c = projection_coefficient<float>(bounds, sums);
  Sums stored;
  if (step.options.p == 2) {
    each_segment(step, group, sums, [&](const Segment& segment, const Sums& own) {
      const double distance = distance_after(bounds.center, c, own);
      *segment.distance = distance;
      stored.before += distance * distance;
    });
  }
  if (group.segments > 1) stored = block_total(stored);
  if (threadIdx.x == 0) {
    state.cached_norm = sqrt(stored.before);
    state.c = c;
    __threadfence();  // these, and all that the other blocks wrote, before the flags
    if (bounds.center != Center::none) atomicExch(&state.ready, 1u);
    atomicAdd(&step.memory.queue->decided, 1u);
  }
}

// The cached norm of a shard is that of all ranks, one per norm group.
__device__ inline double* shard_norm(const DeviceStep& step, const NormGroup& group) {
  return step.memory.segments[group.first_segment].distance;
}

// Ends the update of a shard's norm group: the projection waits for the sums of the other ranks.
// Keeps the norm that the update pushed with, for the projection replaces the cached one.
__device__ inline void leave_sums(const DeviceStep& step, int64_t index, const Sums& sums) {
  if (threadIdx.x != 0) return;
  step.sums[index] = sums;
  if (step.options.p == 2) {
    step.memory.states[index].cached_norm = *shard_norm(step, step.memory.norm_groups[index]);
  }
  atomicAdd(&step.memory.queue->decided, 1u);
}

}  // namespace d3
