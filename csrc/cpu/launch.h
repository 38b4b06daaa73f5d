// SPDX-License-Identifier: Apache-2.0
//
// One optimizer step on the CPU.
#pragma once

#include "common/dtypes.h"
#include "common/options.h"
#include "common/partition.h"

namespace d3 {

// Elements per chunk: many enough that what a kernel prefetches seldom belongs to another core's
// chunk, few enough that cores finish together and a chunk's arrays fit a second-level cache.
constexpr int64_t kCpuChunk = 32768;

// The arrays and numbers of one step.
struct CpuStep {
  const Partition* partition = nullptr;
  const double* reference_norms = nullptr;  // [segments], Euclidean norms of theta_0
  void* const* grads = nullptr;             // [segments] -> [numel]
  const bool* first_step = nullptr;         // [segments], the momentum buffer holds no step yet
  bool verify = false;                      // cached norms may be wrong: verify them before use
  int threads = 1;
  double grad_scale = 1;  // gradients are divided by it, in place
  Phase phase = Phase::whole;
  Sums* sums = nullptr;          // [norm groups], written by update and correct
  const Sums* totals = nullptr;  // [norm groups], over all ranks, read by correct and project
  StepOptions options;
};

// Takes a step, or a part of one, in place; true where Phase::correct changed a norm group.
using CpuLaunch = bool (*)(const CpuStep& step);

// The launch for arrays of these types, or null where there are no kernels for them.
CpuLaunch cpu_launch(const DTypeNames& dtypes);

}  // namespace d3
