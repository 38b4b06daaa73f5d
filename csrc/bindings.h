// SPDX-License-Identifier: Apache-2.0
//
// What the bindings of both backends share: addresses as Python hands them over, and their checks.
#pragma once

#include <cstdint>
#include <vector>

#include "plan.h"

namespace d3 {

using Address = std::uintptr_t;
using Addresses = std::vector<Address>;

template <class P>
P* pointer(Address address) {
  return reinterpret_cast<P*>(address);
}

// The tensors of one group. reference, momentum and distance may be empty: the group has none.
// Throws std::invalid_argument where lengths differ or a tensor with elements has no storage.
std::vector<Segment> segments_of(const Addresses& theta, const std::vector<int64_t>& numel,
                                 const Addresses& reference, const Addresses& momentum,
                                 const Addresses& distance);

// Whether a group cut like this can take a step with these options.
void check_options(const Cut& cut, const StepOptions& options);

}  // namespace d3
