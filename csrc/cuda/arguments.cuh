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

constexpr int64_t kCudaChunk = 8192;  // elements per chunk

// The arguments of every kernel. All pointers are device pointers.
struct DeviceStep {
  DeviceMemory memory;
  const double* reference_norms;  // [segments], null where untracked
  unsigned chunks;
  unsigned items;        // of the queue
  unsigned norm_groups;  // those with elements
  unsigned segments;
  bool verify;              // cached norms may be wrong
  const float* grad_scale;  // [1] or null
  const float* found_inf;   // [1] or null
  // Of a part of a shard's step, else null.
  Sums* sums;              // [norm groups], receives this rank's in an update
  const Sums* totals;      // [norm groups], those of all ranks, for the projection
  const double* held;      // [2], the projection is taken where both are 0
  Scalars<float> scalars;  // of the options; lr where the host knows it
  float rate;              // 1 - dampening
  StepOptions options;
  bool has_grads;  // the gradients are these; otherwise those in memory
  GradEntry grads[kGradArguments];
};
static_assert(sizeof(DeviceStep) <= 4096, "a launch carries 4 KiB of arguments");

__device__ inline const GradEntry& grad_entry(const DeviceStep& step, int64_t segment) {
  return step.has_grads ? step.grads[segment] : step.memory.grads[segment];
}

__device__ inline double value_of(const Scalar& scalar) {
  if (scalar.device == nullptr) return scalar.value;
  if (scalar.is_double) return *static_cast<const double*>(scalar.device);
  return *static_cast<const float*>(scalar.device);
}

// True on overflow of the loss scale: nothing moves.
__device__ inline bool skipped(const DeviceStep& step) {
  return step.found_inf != nullptr && *step.found_inf != 0;
}

// The arrays of one chunk; compensation and reference where the weights are tracked, momentum and
// variance where the rule keeps that many buffers.
template <class DTypes, bool kTracked, int kStates>
struct ChunkArrays {
  using Weight = typename DTypes::Weight;
  using MomentumBuffer = typename DTypes::MomentumBuffer;
  using Reference = typename DTypes::Reference;
  static constexpr int N = kElements<DTypes>;
  static constexpr bool kCompensated = kTracked && DTypeTraits<Weight>::kHalf;
  Weight* theta;
  Weight* compensation;
  const Reference* reference;
  Weight* grad;
  MomentumBuffer* momentum;
  float* variance;
  int n;

  __device__ ChunkArrays(const DeviceStep& step, const Chunk& chunk) {
    const Segment& s = step.memory.segments[chunk.segment];
    const int64_t offset = chunk.offset;
    theta = static_cast<Weight*>(s.theta) + offset;
    grad = static_cast<Weight*>(grad_entry(step, chunk.segment).grad) + offset;
    if constexpr (kCompensated) compensation = static_cast<Weight*>(s.compensation) + offset;
    if constexpr (kTracked) reference = static_cast<const Reference*>(s.reference) + offset;
    if constexpr (kStates > 0) momentum = static_cast<MomentumBuffer*>(s.momentum) + offset;
    if constexpr (kStates > 1) variance = static_cast<float*>(s.variance) + offset;
    n = static_cast<int>(chunk.length);
  }

  __device__ void advance(int elements) {
    theta += elements;
    grad += elements;
    if constexpr (kCompensated) compensation += elements;
    if constexpr (kTracked) reference += elements;
    if constexpr (kStates > 0) momentum += elements;
    if constexpr (kStates > 1) variance += elements;
  }

  // Whether all arrays can be accessed in whole pieces.
  __device__ bool aligned() const {
    bool all = d3::aligned<N>(theta) & d3::aligned<N>(grad);
    if constexpr (kCompensated) all &= d3::aligned<N>(compensation);
    if constexpr (kTracked) all &= d3::aligned<N>(reference);
    if constexpr (kStates > 0) all &= d3::aligned<N>(momentum);
    if constexpr (kStates > 1) all &= d3::aligned<N>(variance);
    return all;
  }
};

}  // namespace d3
