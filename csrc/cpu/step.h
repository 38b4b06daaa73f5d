// SPDX-License-Identifier: Apache-2.0
//
// One optimizer step on the CPU.
#pragma once

#include "plan.h"
#include "stored.h"

namespace d3 {

// Elements per chunk: many enough that what a sweep prefetches seldom belongs to another core's
// chunk, few enough that cores finish together and that a chunk's arrays fit a second-level cache.
constexpr int64_t kCpuChunk = 32768;

// The arrays of one group that a step needs besides the cut.
struct CpuStep {
  const Cut* cut = nullptr;
  const double* reference_norms = nullptr;  // [segments], Euclidean norms of theta_0
  void* const* grads = nullptr;             // [segments] -> [numel]
  const bool* fresh = nullptr;              // [segments], the momentum buffer holds no step yet
  bool verify = false;                      // carried norms may be wrong: check before use
  int threads = 1;
  StepOptions options;
};

// Takes a step in place.
using CpuStepper = void (*)(const CpuStep& step);

// The one for arrays of these types, or null where there are no kernels for them.
CpuStepper cpu_stepper(const Dtypes& types);

}  // namespace d3
