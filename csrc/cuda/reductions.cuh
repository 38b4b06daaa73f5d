// SPDX-License-Identifier: Apache-2.0
//
// Sums over threads, chunks and segments, always in the same order. Sums go through a shared-memory
// tree within a block; the block that completes a norm group adds those of its chunks.
#pragma once

#include "cuda/arguments.cuh"

namespace d3 {

constexpr int64_t kFewChunks = 32;  // one thread adds so many faster than a block does

// Adds the threads' sums in a fixed tree; every thread gets the result.
__device__ inline Sums block_total(const Sums& mine) {
  __shared__ Sums tree[kThreads];
  const int t = static_cast<int>(threadIdx.x);
  __syncthreads();  // all have read the result of an earlier call
  tree[t] = mine;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (t < half) tree[t].add(tree[t + half]);
    __syncthreads();
  }
  return tree[0];
}

// Sums written by other blocks: past L1, which does not see them.
__device__ inline Sums load_sums(const Sums* p) {
  Sums s;
  s.before = __ldcg(&p->before);
  s.after = __ldcg(&p->after);
  s.weight = __ldcg(&p->weight);
  s.inner = __ldcg(&p->inner);
  return s;
}

// The sums of a run of chunks, added by the whole block.
__device__ inline Sums total(const DeviceStep& step, int64_t first, int64_t count) {
  Sums mine;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) {
    mine.add(load_sums(step.memory.partial + first + i));
  }
  return block_total(mine);
}

__device__ inline Sums group_total(const DeviceStep& step, const NormGroup& group) {
  return total(step, group.first_chunk, group.chunks);
}

// Calls use(segment, its sums) in one thread per segment of the norm group. The sums of a large
// segment are added by all threads: thousands of dependent loads would outlast the update.
template <class Use>
__device__ inline void each_segment(const DeviceStep& step, const NormGroup& group,
                                    const Sums& of_group, const Use& use) {
  if (group.segments == 1) {
    if (threadIdx.x == 0) use(step.memory.segments[group.first_segment], of_group);
    return;
  }
  for (int64_t i = 0; i < group.segments; ++i) {
    const Segment& segment = step.memory.segments[group.first_segment + i];
    if (segment.chunks <= kFewChunks) continue;
    const Sums sums = total(step, segment.first_chunk, segment.chunks);
    if (threadIdx.x == 0) use(segment, sums);
  }
  for (int64_t i = threadIdx.x; i < group.segments; i += kThreads) {
    const Segment& segment = step.memory.segments[group.first_segment + i];
    if (segment.chunks > kFewChunks) continue;
    Sums sums;
    for (int64_t k = 0; k < segment.chunks; ++k) {
      sums.add(load_sums(step.memory.partial + segment.first_chunk + k));
    }
    use(segment, sums);
  }
}

// sqrt of the sum of number(segment index)^2 over the segments of the norm group.
template <class Number>
__device__ double segment_norm(const NormGroup& group, const Number& number) {
  Sums mine;
  for (int64_t i = threadIdx.x; i < group.segments; i += kThreads) {
    const double x = number(group.first_segment + i);
    mine.before += x * x;
  }
  return sqrt(block_total(mine).before);
}

__device__ inline double reference_norm(const DeviceStep& step, const NormGroup& group) {
  return segment_norm(group, [&](int64_t i) { return step.reference_norms[i]; });
}

// Publishes this chunk's sums; true in every thread of the block that completes the norm group.
__device__ inline bool completes_group(const DeviceStep& step, int64_t index, const Sums& sums) {
  __shared__ bool last;
  const Chunk& chunk = step.memory.chunks[index];
  if (threadIdx.x == 0) {
    step.memory.partial[index] = sums;
    __threadfence();
    GroupState& state = step.memory.states[chunk.norm_group];
    const unsigned before = atomicAdd(&state.finished, 1u);
    last = before + 1 == static_cast<unsigned>(step.memory.norm_groups[chunk.norm_group].chunks);
    if (last) state.finished = 0;
  }
  __syncthreads();
  const bool mine = last;
  if (mine) __threadfence();
  return mine;
}

// Adds one element, its weight before and after the update.
__device__ inline void accumulate(Sums& sums, float before, float after, float reference) {
  const double r = reference, w = after;
  const double old = static_cast<double>(before) - r, delta = w - r;
  sums.before += old * old;
  sums.after += delta * delta;
  sums.weight += w * w;
  sums.inner += delta * w;
}

}  // namespace d3
