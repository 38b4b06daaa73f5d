// SPDX-License-Identifier: Apache-2.0
//
// What the sums of a norm group decide: its projection, and its cached norm after it.
#pragma once

#include "cuda/reductions.cuh"

namespace d3 {

__device__ inline Bounds bounds_of(const DeviceStep& step, const NormGroup& group) {
  const StepOptions& o = step.options;
  if (o.center == Center::none) return Bounds();
  const double unit = o.relative ? reference_norm(step, group) : 1.0;
  return bounds_of(o, value_of(o.lower), value_of(o.upper), unit);
}

// Stores the norms as they will be after the projection, then tells all blocks its coefficient. By
// the block that completes the norm group.
__device__ inline void decide_projection(const DeviceStep& step, int64_t index, const Sums& sums) {
  const NormGroup& group = step.memory.norm_groups[index];
  GroupState& state = step.memory.states[index];
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
  if (group.segments > 1) stored = block_total(stored);
  if (threadIdx.x == 0) {
    state.cached_norm = sqrt(stored.before);
    state.c = c;
    __threadfence();  // these, and all that the other blocks wrote, before the flags
    if (bounds.center != Center::none) atomicExch(&state.ready, 1u);
    atomicAdd(&step.memory.queue->decided, 1u);
  }
}

}  // namespace d3
