// SPDX-License-Identifier: Apache-2.0
//
// Launches of the kernels, apart from the bindings so that nvcc compiles as little as possible.
#pragma once

#include <cstdint>
#include <vector>

#include "plan.h"
#include "stored.h"

namespace d3 {

// A number of one step that may lie on the device, where the host does not know it.
struct DeviceScalar {
  const void* at = nullptr;  // float, or double where wide; null: it is among the options
  bool wide = false;
};

// Where a group's tables and buffers lie on the device; all are device addresses.
struct CudaStep {
  int device = 0;
  void* stream = nullptr;                   // cudaStream_t
  const void* table = nullptr;              // segments, units, chunks, order
  void* workspace = nullptr;                // cuda_workspace_bytes, zero before the first step
  const double* reference_norms = nullptr;  // [segments], null where untracked
  const void* grads = nullptr;              // [segments] pairs (address, fresh) of int64
  DeviceScalar lr, lower, upper;
  const float* grad_scale = nullptr;  // [1] or null
  const float* found_inf = nullptr;   // [1] or null
  bool verify = false;                // carried norms may be wrong: check before use
  StepOptions options;
};

// Elements per chunk of the CUDA backend.
int64_t cuda_chunk();

// The order in which a step with projection takes its work; part of the table.
std::vector<int64_t> cuda_order(const Cut& cut);

int64_t cuda_workspace_bytes(const Cut& cut);

// Enqueues one step for a group cut by `cut`. Throws std::runtime_error if CUDA refuses. The device
// is made the thread's current one and stays it: whoever calls has chosen it already, through a
// runtime that is not the one linked here, whose idea of a device to go back to may be another.
using CudaStepper = void (*)(const Cut& cut, const CudaStep& step);

// The one for arrays of these types, or null where there are no kernels for them.
CudaStepper cuda_stepper(const Dtypes& types);

// Enqueues that `words` be written to device memory, also while a graph is captured; every replay
// writes them again.
void cuda_write(int device, void* stream, void* to, const std::vector<int64_t>& words);

}  // namespace d3
