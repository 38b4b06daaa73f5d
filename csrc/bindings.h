// SPDX-License-Identifier: Apache-2.0
//
// What the bindings of both backends share: addresses as Python hands them over, and their checks.
#pragma once

#include <cstdint>
#include <vector>

#include "plan.h"
#include "stored.h"

namespace d3 {

using Address = std::uintptr_t;
using Addresses = std::vector<Address>;

template <class P>
P* pointer(Address address) {
  return reinterpret_cast<P*>(address);
}

// The tensors of one group. All columns but theta may be empty: the group has none.
struct Columns {
  Addresses theta;
  std::vector<int64_t> numel;
  Addresses compensation, reference, momentum, distance;
};

// Throws std::invalid_argument where lengths differ, a tensor with elements has no storage, or
// weights of a half type are tracked without compensation.
std::vector<Segment> segments_of(const Columns& columns, const Dtypes& types);

// Throws std::invalid_argument: there are no kernels for these types.
[[noreturn]] void refuse(const Dtypes& types);

// Whether a group cut like this can take a step with these options.
void check_options(const Cut& cut, const StepOptions& options);

}  // namespace d3
