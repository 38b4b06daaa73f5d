// SPDX-License-Identifier: Apache-2.0
//
// Launches of the kernels, apart from the bindings so that nvcc compiles as little as possible. One
// step is one launch whatever the number of tensors, a second where cached norms have to be
// verified first; that of a shard is one launch before the ranks add up their sums and one after.
// Nothing waits for the device.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/dtypes.h"
#include "common/options.h"
#include "common/partition.h"
#include "cuda/memory.h"

namespace d3 {

// One step of one group. Addresses are those of device memory.
struct CudaStep {
  int device = 0;
  void* stream = nullptr;                   // cudaStream_t
  void* memory = nullptr;                   // see memory.h
  const double* reference_norms = nullptr;  // [segments], null where untracked
  bool verify = false;                      // cached norms may be wrong: verify them before use
  Scalar grad_scale{1}, found_inf{0};       // on the device as float, or these values
  Phase phase = Phase::whole;               // all but correct
  Sums* sums = nullptr;                     // [norm groups], see DeviceStep
  const Sums* totals = nullptr;             // [norm groups]
  const double* held = nullptr;             // [2] or null
  StepOptions options;
  std::vector<GradEntry> grads;  // [segments], in memory too where more than kGradArguments
};

// Elements per chunk of the CUDA backend.
int64_t cuda_chunk();

// The number of blocks of a step over arrays of these types that the device holds at a time: the
// lag of its order of work (see schedule.h).
int64_t cuda_resident_blocks(const DTypeNames& dtypes, int device);

// Enqueues one step. Throws std::runtime_error where CUDA refuses. The device becomes the thread's
// current one and stays so: the caller has chosen it already, through a runtime that is not the one
// linked here and may have another device to return to.
using CudaLaunch = void (*)(const Partition& partition, const CudaStep& step);

// The launch for arrays of these types, or null where there are no kernels for them.
CudaLaunch cuda_launch(const DTypeNames& dtypes);

// Enqueues that `words` be written to device memory. They travel as arguments of launches, so no
// host memory has to outlive the call, and every replay of a captured graph writes them again.
void cuda_write(int device, void* stream, void* to, const std::vector<int64_t>& words);

// Why the device cannot run the kernels for these types: the driver is older than the runtime
// linked here, or the build has no code for the device's architecture. Empty where it can.
std::string cuda_obstacle(int device, const DTypeNames& dtypes);

// True while the stream is captured into a graph.
bool cuda_is_capturing(int device, void* stream);

}  // namespace d3
