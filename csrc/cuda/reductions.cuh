// SPDX-License-Identifier: Apache-2.0
//
// Sums over threads, chunks, segments and norm groups, always in the same order. A thread adds runs
// of elements in float and the runs in double; a block adds its threads in a shared-memory tree.
// The block that completes a segment, which a counter tells, adds the sums of its chunks, and the
// one that completes a norm group those of its segments.
#pragma once

#include "cuda/arguments.cuh"

namespace d3 {

// The sums of a run of elements: 8 of them in float lose less than the update's own rounding, and
// GPUs with few double units are as fast as their memory.
struct RunSums {
  float before = 0, after = 0, weight = 0, inner = 0;

  D3_DEVICE void add(float delta_before, float delta, float theta) {
    before += delta_before * delta_before;
    after += delta * delta;
    weight += theta * theta;
    inner += delta * theta;
  }
  D3_DEVICE void add_to(Sums& sums) const {
    sums.before += before;
    sums.after += after;
    sums.weight += weight;
    sums.inner += inner;
  }
};

// Adds the threads' sums in a fixed tree; every thread gets the result. What the threads wrote
// before is visible to each of them after it.
__device__ inline Sums block_total(const Sums& mine) {
  __shared__ Sums tree[kThreads];
  const int t = static_cast<int>(threadIdx.x);
  __syncthreads();  // all have read the result of an earlier call
  tree[t] = mine;
  __syncthreads();
#pragma unroll 1
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

// Calls use(i) for each i < count in one thread. Unrolled, its registers would be those of the
// whole kernel.
template <class Use>
__device__ inline void spread(int64_t count, const Use& use) {
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) use(i);
}

// The total of sums written by other blocks, added by the whole block.
__device__ inline Sums total(const Sums* sums, int64_t count) {
  Sums mine;
  spread(count, [&](int i) { mine.add(load_sums(sums + i)); });
  return block_total(mine);
}

// Calls use(segment, its sums) in one thread per segment of the norm group.
template <class Use>
__device__ inline void each_segment(const DeviceStep& step, const NormGroup& group,
                                    const Sums& of_group, const Use& use) {
  spread(group.segments, [&](int i) {
    const int64_t index = group.first_segment + i;
    use(step.memory.segments[index],
        group.segments == 1 ? of_group : load_sums(step.memory.segment_sums + index));
  });
}

// sqrt of the sum of number(segment index)^2 over the segments of the norm group.
template <class Number>
__device__ double segment_norm(const NormGroup& group, const Number& number) {
  if (group.segments == 1) return number(group.first_segment);
  Sums mine;
  spread(group.segments, [&](int i) {
    const double x = number(group.first_segment + i);
    mine.before += x * x;
  });
  return sqrt(block_total(mine).before);
}

__device__ inline double reference_norm(const DeviceStep& step, const NormGroup& group) {
  return segment_norm(group, [&](int64_t i) { return step.reference_norms[i]; });
}

// Adds `part` to a counter; true in every thread of the block that brings it to `all`, which clears
// it and from there on sees what all contributors wrote. Thread 0 fences for its block: a barrier
// has ordered the writes of the other threads before.
__device__ inline bool completes(unsigned* counter, int64_t part, int64_t all) {
  __shared__ bool last;
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicAdd(counter, static_cast<unsigned>(part)) + part == all;
    if (last) atomicExch(counter, 0u);
    __threadfence();
  }
  __syncthreads();
  return last;
}

// Publishes a chunk's sums, those of block_total, unless another rank counts them. True in every
// thread of the block that completes the norm group, and then the sums of the group.
__device__ inline bool completes_group(const DeviceStep& step, int64_t index, const Sums& of_chunk,
                                       Sums& of_group) {
  const Chunk& chunk = step.memory.chunks[index];
  const Segment& segment = step.memory.segments[chunk.segment];
  const NormGroup& group = step.memory.norm_groups[chunk.norm_group];
  Sums sums = segment.counts ? of_chunk : Sums();
  if (segment.chunks > 1) {
    if (threadIdx.x == 0) step.memory.partial[index] = sums;
    unsigned* const counter = step.memory.finished_chunks + chunk.segment;
    if (!completes(counter, 1, segment.chunks)) return false;
    sums = total(step.memory.partial + segment.first_chunk, segment.chunks);
  }
  if (group.segments > 1) {
    if (threadIdx.x == 0) step.memory.segment_sums[chunk.segment] = sums;
    unsigned* const counter = &step.memory.states[chunk.norm_group].finished;
    if (!completes(counter, segment.chunks, group.chunks)) return false;
    sums = total(step.memory.segment_sums + group.first_segment, group.segments);
  }
  of_group = sums;
  return true;
}

}  // namespace d3
