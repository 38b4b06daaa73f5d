// SPDX-License-Identifier: Apache-2.0
//
// A step in one launch. Blocks take items off one queue in the order of schedule.h: the update of a
// chunk, or, once its norm group's updates are done, its projection, which finds the weights still
// in L2. A projection waits for updates only, and those come before it in the queue: whatever it
// waits for is running already, however few blocks fit the GPU.
#pragma once

#include "cuda/projection.cuh"
#include "cuda/update.cuh"

namespace d3 {

// The projection coefficient of a chunk's norm group; the last chunk of the group to read it clears
// the flag.
__device__ inline double read_coefficient(const DeviceStep& step, int64_t chunk,
                                          GroupState& state) {
  __threadfence();
  const double c = __ldcg(&state.c);
  const int64_t norm_group = step.memory.chunks[chunk].norm_group;
  const unsigned before = atomicAdd(&state.projected, 1u);
  if (before + 1 == static_cast<unsigned>(step.memory.norm_groups[norm_group].chunks)) {
    atomicExch(&state.projected, 0u);
    atomicExch(&state.ready, 0u);
  }
  return c;
}

// What a block does next.
enum class Task { update, correct, project, leave };

struct Work {
  Task task;
  float c;                  // project: the coefficient
  int64_t chunk;            // its index
  const Correction* entry;  // correct: of the list
};

constexpr unsigned kNone = ~0u;

// The block's next work, by thread 0. held: the place in the queue that the block holds, of a
// projection that waits for its norm group, or past the end where the block waits for the last one.
// While it waits it corrects chunks. No item is taken ahead of time: a block that waits while it
// holds an update could wait for itself. Where the work rests on what other blocks wrote, thread 0
// fences, and the barrier behind this passes it on to the others.
template <bool kCorrects>
__device__ inline Work take_work(const DeviceStep& step, unsigned& held) {
  const bool projects = step.options.center != Center::none;
  for (;;) {
    if (held == kNone) held = atomicAdd(&step.memory.queue->next, 1u);
    const bool ended = held >= step.items;
    const int64_t item = ended ? -1 : projects ? step.memory.order[held] : held;
    if (item >= 0) {
      held = kNone;
      return {Task::update, 1, item, nullptr};
    }
    if (ended && !kCorrects) return {Task::leave, 1, 0, nullptr};
    GroupState* const state =
        ended ? nullptr : step.memory.states + step.memory.chunks[~item].norm_group;
    while (ended ? __ldcv(&step.memory.queue->decided) != step.norm_groups
                 : __ldcv(&state->ready) == 0) {
      if constexpr (kCorrects) {
        const Correction* entry = nullptr;
        const int64_t chunk = take_correction(step, entry);
        if (chunk >= 0) {
          __threadfence();
          return {Task::correct, 1, chunk, entry};
        }
      }
      __nanosleep(100);
    }
    if (ended) return {Task::leave, 1, 0, nullptr};
    held = kNone;
    const double c = read_coefficient(step, ~item, *state);
    if (c != 1) return {Task::project, static_cast<float>(c), ~item, nullptr};
  }
}

// Leaves the queue as the next launch expects it, by the last block.
__device__ inline void leave_queue(const DeviceStep& step) {
  Queue& queue = *step.memory.queue;
  if (threadIdx.x != 0) return;
  __threadfence();
  if (atomicAdd(&queue.done, 1u) + 1 != gridDim.x) return;
  __threadfence();  // all that the other blocks did to the queue comes first
  clear_corrections(step);
  queue.next = 0;
  queue.decided = 0;
  atomicExch(&queue.done, 0u);
}

// The step of tracked weights. Without a projection an item is the chunk to update.
template <class DTypes, Tracking kTracking, class Rule>
__global__ void __launch_bounds__(kThreads, Rule::kBlocks) step_kernel(const DeviceStep step) {
  constexpr bool kCorrects = kTracking == Tracking::pushed_p2;
  if (skipped(step)) return;
  __shared__ Work work;
  __shared__ unsigned held;
  if (threadIdx.x == 0) held = kNone;
  for (;;) {
    __syncthreads();  // all have read the last work, and written what it told them to
    if (threadIdx.x == 0) work = take_work<kCorrects>(step, held);
    __syncthreads();
    const Task task = work.task;
    if (task == Task::leave) break;
    if (task == Task::project) {
      project_chunk<DTypes>(step, step.memory.chunks[work.chunk], work.c);
      continue;
    }
    Sums mine;
    if (task == Task::update) {
      mine = update_chunk<DTypes, kTracking, Rule>(step, work.chunk);
    } else if constexpr (kCorrects) {
      const Correction& entry = *work.entry;
      mine =
          correct_chunk<DTypes, Rule>(step, work.chunk, __ldcg(&entry.stale), __ldcg(&entry.right));
    }
    finish_chunk<DTypes, Rule, kCorrects>(step, work.chunk, mine, task == Task::correct);
  }
  leave_queue(step);
}

// The step of weights that are not tracked: one block per chunk, no sums.
template <class DTypes, class Rule>
__global__ void __launch_bounds__(kThreads, Rule::kBlocks) update_kernel(const DeviceStep step) {
  if (skipped(step)) return;
  update_chunk<DTypes, Tracking::none, Rule>(step, blockIdx.x);
}

// Counts the coming step of every tensor, before any block reads the count.
__global__ void count_kernel(const DeviceStep step) {
  const unsigned i = blockIdx.x * kThreads + threadIdx.x;
  if (i < step.segments && !skipped(step)) *step.memory.segments[i].steps += 1;
}

}  // namespace d3
