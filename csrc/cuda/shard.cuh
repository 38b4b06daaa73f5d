// SPDX-License-Identifier: Apache-2.0
//
// The projection of a shard, in a launch of its own: before it the ranks have added up the sums
// that step_kernel left (`leave_sums`). Every rank decides alike, from the same totals, and no host
// looks at them.
#pragma once

#include "cuda/projection.cuh"
#include "cuda/update.cuh"

namespace d3 {

// What the totals decide about a norm group.
struct ShardDecision {
  bool corrects;       // the update was pushed with a stale norm, and the rule may correct it
  float stale, right;  // then 1 / D as the update had it, and as it should have been
  float c;             // coefficient of the projection
};

// By one thread. stores: also stores the norm after the step. Where the push is corrected, neither
// the coefficient nor that norm knows of it: they are off by the change of the push, at most
// 2 lr w, until the next step, which measures the norm again.
template <class DTypes, class Rule>
__device__ inline ShardDecision decide_shard(const DeviceStep& step, int64_t index, bool stores) {
  const StepOptions& o = step.options;
  const NormGroup& group = step.memory.norm_groups[index];
  const Sums total = step.totals[index];
  const double cached = step.memory.states[index].cached_norm, actual = sqrt(total.before);
  const Bounds bounds = bounds_of(step, [&] { return step.reference_norms[group.first_segment]; });
  const double c = projection_coefficient<float>(bounds, total);
  ShardDecision decision;
  decision.corrects = o.distance_weight != 0 && o.p == 2 && Rule::corrects(step) &&
                      d3::stale<DTypes>(group, cached, actual, sqrt(total.weight));
  decision.stale = inverse_distance<float>(cached);
  decision.right = inverse_distance<float>(actual);
  decision.c = static_cast<float>(c);
  if (stores && o.p == 2) *shard_norm(step, group) = distance_after(bounds.center, c, total);
  return decision;
}

// Each block takes a run of chunks, so that it decides seldom, and where the constraint is not
// active touches no weights. Takes no projection where a rank waits for another step or refused
// this one: the totals are then not those of a step.
template <class DTypes, class Rule>
__global__ void __launch_bounds__(kThreads, Rule::kBlocks) shard_kernel(const DeviceStep step) {
  const bool held = step.held != nullptr && (step.held[0] != 0 || step.held[1] != 0);
  if (held || skipped(step)) return;
  __shared__ ShardDecision shared;
  const int64_t chunks = step.chunks, end = chunks * (blockIdx.x + 1) / gridDim.x;
  for (int64_t first = chunks * blockIdx.x / gridDim.x; first < end;) {
    const int64_t norm_group = step.memory.chunks[first].norm_group;
    const NormGroup& group = step.memory.norm_groups[norm_group];
    const int64_t after = group.first_chunk + group.chunks, last = after < end ? after : end;
    __syncthreads();  // all have read the last decision
    if (threadIdx.x == 0) {
      shared = decide_shard<DTypes, Rule>(step, norm_group, first == group.first_chunk);
    }
    __syncthreads();
    const ShardDecision decision = shared;
    for (int64_t i = first; i < last && decision.corrects; ++i) {
      correct_chunk<DTypes, Rule>(step, i, decision.stale, decision.right);
    }
    if (decision.corrects) __syncthreads();  // other threads take the same elements next
    for (int64_t i = first; i < last && decision.c != 1; ++i) {
      project_chunk<DTypes>(step, step.memory.chunks[i], decision.c);
    }
    first = last;
  }
}

}  // namespace d3
