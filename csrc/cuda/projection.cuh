// SPDX-License-Identifier: Apache-2.0
//
// A step with projection in one launch. Blocks take items off one queue in the order of schedule.h:
// the update of a chunk, or, once its norm group's updates are done, its projection, which finds
// the weights still in L2. A projection waits for updates only, and those come before it in the
// queue: whatever it waits for is running already, however few blocks fit the GPU.
#pragma once

#include "cuda/update.cuh"

namespace d3 {

// The block's next item, past the end where there is none. None is taken ahead of time: a block
// that waits while it holds an update could wait for itself.
__device__ inline int64_t next_item(const DeviceStep& step) {
  __shared__ unsigned item;
  __syncthreads();  // all have read the last one
  if (threadIdx.x == 0) item = atomicAdd(&step.memory.queue->next, 1u);
  __syncthreads();
  return item;
}

// The projection coefficient of a norm group, as soon as it is known.
__device__ inline double await_coefficient(const DeviceStep& step, int64_t norm_group) {
  GroupState& state = step.memory.states[norm_group];
  if (threadIdx.x == 0) {
    while (*static_cast<const volatile unsigned*>(&state.ready) == 0) __nanosleep(100);
    __threadfence();
    const unsigned before = atomicAdd(&state.projected, 1u);
    if (before + 1 == static_cast<unsigned>(step.memory.norm_groups[norm_group].chunks)) {
      state.projected = 0;
      state.ready = 0;
    }
  }
  __syncthreads();
  return __ldcg(&state.c);
}

template <class DTypes>
__device__ inline void project_chunk(const DeviceStep& step, int64_t index) {
  constexpr int N = kElements<DTypes>, kUnroll = 16 / N;
  const Chunk& chunk = step.memory.chunks[index];
  const double coefficient = await_coefficient(step, chunk.norm_group);
  if (coefficient == 1) return;
  const ChunkArrays<DTypes> a = arrays_of<DTypes>(step, chunk);
  const float c = static_cast<float>(coefficient);
  const bool around_origin = step.options.center == Center::origin;
#pragma unroll kUnroll
  for (int64_t at = N * static_cast<int64_t>(threadIdx.x); at < a.n; at += N * kThreads) {
    Run<N> theta = a.template load_weights<true, Read::bypass_l1>(at);
    Run<N> reference = {};
    if (!around_origin) reference = a.template load<Read::stream>(a.reference, at);
    for (int k = 0; k < N; ++k) {
      theta.x[k] =
          around_origin ? theta.x[k] * c : reference.x[k] + c * (theta.x[k] - reference.x[k]);
    }
    a.template store_weights<true>(at, theta);
  }
}

// Three blocks per SM leave 80 registers; from Blackwell on the compiler would spill a few of them.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr int kStepBlocks = 2;
#else
constexpr int kStepBlocks = 3;
#endif

template <class DTypes, Tracking kTracking, Momentum kMomentum>
__global__ void __launch_bounds__(kThreads, kStepBlocks) step_kernel(const DeviceStep step) {
  if (skipped(step)) return;
  for (int64_t at = next_item(step); at < step.items; at = next_item(step)) {
    const int64_t item = step.memory.order[at];
    if (item >= 0) {
      update_chunk<DTypes, kTracking, kMomentum>(step, item);
    } else {
      project_chunk<DTypes>(step, ~item);
    }
  }
  if (threadIdx.x == 0 && atomicAdd(&step.memory.queue->done, 1u) + 1 == gridDim.x) {
    step.memory.queue->next = 0;
    step.memory.queue->done = 0;
  }
}

}  // namespace d3
