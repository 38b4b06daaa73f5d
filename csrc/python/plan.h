// SPDX-License-Identifier: Apache-2.0
//
// A plan as Python sees it: made for the tensors of one param group, it takes their steps. Both
// backends derive from it in their bind.cpp. Addresses cross as integers, so nothing here needs
// torch.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

#include "common/dtypes.h"
#include "common/options.h"
#include "common/partition.h"

namespace d3 {

using Address = std::uintptr_t;
using Addresses = std::vector<Address>;

template <class Pointee>
Pointee* pointer(Address address) {
  return reinterpret_cast<Pointee*>(address);
}

// The tensors of one group, by column. All columns but theta may be empty: the group has none.
struct Columns {
  Addresses theta;
  std::vector<int64_t> numel;
  Addresses compensation, reference, momentum, variance, steps, distance;
  std::vector<int64_t> whole;  // see Segment; empty where the tensors are no shards
  std::vector<bool> counts;
};

// One step as Python asks for it.
struct StepRequest {
  Addresses grads;               // [segments], each in the layout of its parameter
  std::vector<bool> first_step;  // [segments] momentum buffers that hold no step yet; empty: none
  bool verify = false;           // cached norms may be wrong: verify them before use
  StepOptions options;
  Scalar grad_scale{1};   // gradients are divided by it, in place
  Scalar found_inf{0};    // where it is not 0 nothing moves
  uint64_t executor = 0;  // CPU: number of threads; CUDA: the cudaStream_t
  Phase phase = Phase::whole;
  Address sums = 0, totals = 0;  // double [norm groups][4], as struct Sums, where the plan's are
  Address held = 0;  // CUDA: double [2]; the projection is taken where both are 0, or without it
};

class Plan {
 public:
  virtual ~Plan() = default;

  // Takes a step, or a part of one, in place; on a GPU enqueues it. True where Phase::correct
  // changed something. Throws std::invalid_argument where the request does not fit the plan.
  virtual bool step(const StepRequest& request) = 0;

 protected:
  // Throws std::invalid_argument where columns differ in length, a tensor with elements has no
  // storage, or tracked weights of a half type have no compensation.
  Plan(const DTypeNames& dtypes, const Columns& columns, bool joint_norm, int64_t chunk_length);

  void check(const StepRequest& request) const;
  bool is_first_step(const StepRequest& request, size_t segment) const {
    return !request.first_step.empty() && request.first_step[segment];
  }

  Partition partition_;
};

// Throws std::invalid_argument: the backend has no kernels for these types.
[[noreturn]] void refuse_dtypes(const DTypeNames& dtypes);

// Adds what both backends' plans are described with: options, dtypes, columns, the class Plan.
void bind_plan(pybind11::module_& m);

}  // namespace d3
