// SPDX-License-Identifier: Apache-2.0
//
// The arguments of the kernels, and the arrays of one chunk. The .cuh files include no CUDA header,
// so that the tests can compile them for the host.
#pragma once

#include "common/dtypes.h"
#include "common/options.h"
#include "cuda/access.cuh"
#include "cuda/memory.h"

namespace d3 {

constexpr int kThreads = 256;         // per block, a power of two
constexpr int64_t kCudaChunk = 8192;  // elements per chunk

// The arguments of every kernel. All pointers are device pointers.
struct DeviceStep {
  DeviceMemory memory;
  const double* reference_norms;  // [segments], null where untracked
  int64_t items;                  // length of the order
  const float* grad_scale;        // [1] or null
  const float* found_inf;         // [1] or null
  StepOptions options;
};

__device__ inline double value_of(const Scalar& scalar) {
  if (scalar.device == nullptr) return scalar.value;
  if (scalar.is_double) return *static_cast<const double*>(scalar.device);
  return *static_cast<const float*>(scalar.device);
}

// True on overflow of the loss scale: nothing moves.
__device__ inline bool skipped(const DeviceStep& step) {
  return step.found_inf != nullptr && *step.found_inf != 0;
}

__device__ inline float rate_of(const DeviceStep& step, const Chunk& chunk) {
  return step.memory.grads[chunk.segment].first_step
             ? 1.0f
             : static_cast<float>(1 - step.options.dampening);
}

// One chunk; compensation, reference and momentum may be null.
template <class DTypes>
struct ChunkArrays {
  using Weight = typename DTypes::Weight;
  static constexpr int N = kElements<DTypes>;
  static constexpr bool kHalf = DTypeTraits<Weight>::kHalf;
  Weight* theta;
  Weight* compensation;
  const typename DTypes::Reference* reference;
  Weight* grad;
  typename DTypes::MomentumBuffer* momentum;
  int64_t n;
  bool aligned;

  template <Read kRead, class Stored>
  __device__ Run<N> load(const Stored* p, int64_t at) const {
    return load_run<N, kRead>(p, at, n, aligned);
  }
  template <class Stored>
  __device__ void store(Stored* p, int64_t at, const Run<N>& run) const {
    store_run<N>(p, at, n, aligned, run);
  }

  // The weights, with their compensations where the type has them.
  template <bool kTracked, Read kRead>
  __device__ Run<N> load_weights(int64_t at) const {
    Run<N> x = load<kRead>(theta, at);
    if constexpr (kTracked && kHalf) {
      const Run<N> c = load<kRead>(compensation, at);
      for (int k = 0; k < N; ++k) x.x[k] = kahan_load<Weight>(x.x[k], c.x[k]);
    }
    return x;
  }
  template <bool kTracked>
  __device__ void store_weights(int64_t at, const Run<N>& x) const {
    store(theta, at, x);
    if constexpr (kTracked && kHalf) {
      Run<N> c;
      for (int k = 0; k < N; ++k) c.x[k] = x.x[k] - widen(narrow<Weight>(x.x[k]));
      store(compensation, at, c);
    }
  }
};

template <class Stored>
__device__ inline Stored* from(Stored* first, int64_t offset) {
  return first == nullptr ? nullptr : first + offset;
}

template <class DTypes>
__device__ inline ChunkArrays<DTypes> arrays_of(const DeviceStep& step, const Chunk& chunk) {
  using Weight = typename DTypes::Weight;
  const Segment& s = step.memory.segments[chunk.segment];
  ChunkArrays<DTypes> a;
  a.theta = from(static_cast<Weight*>(s.theta), chunk.offset);
  a.compensation = from(static_cast<Weight*>(s.compensation), chunk.offset);
  a.reference = from(static_cast<const typename DTypes::Reference*>(s.reference), chunk.offset);
  a.momentum = from(static_cast<typename DTypes::MomentumBuffer*>(s.momentum), chunk.offset);
  // The table is never null; without the comparison step_kernel spills on sm_120 (nvcc 13.0).
  a.grad = step.memory.grads
               ? from(static_cast<Weight*>(step.memory.grads[chunk.segment].grad), chunk.offset)
               : nullptr;
  a.n = chunk.length;
  a.aligned = aligned16(a.theta) && aligned16(a.compensation) && aligned16(a.reference) &&
              aligned16(a.momentum) && aligned16(a.grad);
  return a;
}

}  // namespace d3
