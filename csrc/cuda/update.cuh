// SPDX-License-Identifier: Apache-2.0
//
// The update of one chunk, and what follows once a norm group is updated: the block that completes
// it checks the cached norm and decides the projection, or has the step corrected where the norm
// was stale. The host reads nothing back.
#pragma once

#include "cuda/decision.cuh"
#include "cuda/rule.cuh"
#include "cuda/stale_norm.cuh"

namespace d3 {

// D before the step.
__device__ inline double norm_before(const DeviceStep& step, int64_t norm_group) {
  if (step.sums == nullptr) return step.memory.states[norm_group].cached_norm;
  return *shard_norm(step, step.memory.norm_groups[norm_group]);
}

// The step of one chunk without its projection; returns this thread's sums.
template <class DTypes, Tracking kTracking, class Rule>
__device__ inline Sums update_chunk(const DeviceStep& step, int64_t index) {
  constexpr Push kPush = push_of(kTracking);
  const Chunk& chunk = step.memory.chunks[index];
  const Rule rule(step, chunk);
  float inverse = 0;
  if constexpr (kPush == Push::p2) {
    inverse = inverse_distance<float>(norm_before(step, chunk.norm_group));
  }
  const ChunkArrays<DTypes, kTracking != Tracking::none, Rule::kStates> arrays(step, chunk);
  return for_each_element(arrays, step.grad_scale ? *step.grad_scale : 1.0f,
                          [&](float theta, float theta_0, float grad, Buffers<float>& b) {
                            return rule.template update<kPush>(theta, theta - theta_0, grad, b,
                                                               inverse);
                          });
}

// Adds the threads' sums of a chunk to those of its norm group. corrects: the chunk was updated
// with a cached norm that has not been checked yet, and the rule may correct the step.
template <class DTypes, class Rule, bool kChecks>
__device__ inline void finish_chunk(const DeviceStep& step, int64_t index, const Sums& mine,
                                    bool corrected) {
  Sums sums;
  if (!completes_group(step, index, block_total(mine), sums)) return;
  const int64_t norm_group = step.memory.chunks[index].norm_group;
  if (step.sums != nullptr) return leave_sums(step, norm_group, sums);
  if constexpr (kChecks) {
    const NormGroup& group = step.memory.norm_groups[norm_group];
    const double cached = step.memory.states[norm_group].cached_norm, actual = sqrt(sums.before);
    // Where the update cannot be undone the norm was verified before it.
    const bool corrects = !corrected && Rule::corrects(step) &&
                          stale<DTypes>(group, cached, actual, sqrt(sums.weight));
    __syncthreads();  // all have read the cached norm, before it is replaced
    if (corrects) {
      if (threadIdx.x == 0) {
        request_correction(step, norm_group, inverse_distance<float>(cached),
                           inverse_distance<float>(actual));
      }
      return;
    }
  }
  decide_projection(step, norm_group, sums);
}

}  // namespace d3
