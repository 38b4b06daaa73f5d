// SPDX-License-Identifier: Apache-2.0
//
// A step with projection in one launch. Blocks take items off one queue, in the order of `order.h`:
// the update of a chunk, or, once its unit's updates are done, its projection, which finds the
// weights still in the second-level cache. A projection waits for updates only, and those stand
// before it in the queue: whoever it waits for is running already, however few blocks fit the GPU.
#pragma once

#include "cuda/kernels.cuh"

namespace d3 {

// The block's next item, past the end where there is none. None is taken ahead of time: a block
// that waited while it held an update could wait for itself.
__device__ inline int64_t next_item(const DeviceStep& step) {
  __shared__ unsigned item;
  __syncthreads();  // readers of the last one are done
  if (threadIdx.x == 0) item = atomicAdd(&step.queue->next, 1u);
  __syncthreads();
  return item;
}

// The projection coefficient of a chunk's unit, as soon as it is known.
__device__ inline double await_coefficient(const DeviceStep& step, int64_t unit) {
  UnitState& state = step.states[unit];
  if (threadIdx.x == 0) {
    while (*static_cast<const volatile unsigned*>(&state.ready) == 0) __nanosleep(100);
    __threadfence();
    const unsigned before = atomicAdd(&state.projected, 1u);
    if (before + 1 == static_cast<unsigned>(step.units[unit].chunks)) {
      state.projected = 0;
      state.ready = 0;
    }
  }
  __syncthreads();
  return __ldcg(&state.c);
}

template <class K>
__device__ inline void project_chunk(const DeviceStep& step, int64_t index) {
  constexpr int N = kElements<K>, kUnroll = 16 / N;
  const Chunk& chunk = step.chunks[index];
  const double coefficient = await_coefficient(step, chunk.unit);
  if (coefficient == 1) return;
  const Arrays<K> a = arrays_of<K>(step, chunk);
  const float c = static_cast<float>(coefficient);
  const bool around_origin = step.options.center == static_cast<int>(Center::origin);
#pragma unroll kUnroll
  for (int64_t at = N * static_cast<int64_t>(threadIdx.x); at < a.n; at += N * kThreads) {
    Run<N> theta = a.template load_weights<true, Read::others>(at);
    Run<N> reference = {};
    if (!around_origin) reference = a.template load<Read::passes>(a.reference, at);
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

template <class K, Tracking T, Momentum M>
__global__ void __launch_bounds__(kThreads, kStepBlocks) step_kernel(const DeviceStep step) {
  if (skipped(step)) return;
  for (int64_t at = next_item(step); at < step.items; at = next_item(step)) {
    const int64_t item = step.order[at];
    if (item >= 0) {
      update_chunk<K, T, M>(step, item);
    } else {
      project_chunk<K>(step, ~item);
    }
  }
  if (threadIdx.x == 0 && atomicAdd(&step.queue->done, 1u) + 1 == gridDim.x) {
    step.queue->next = 0;
    step.queue->done = 0;
  }
}

}  // namespace d3
