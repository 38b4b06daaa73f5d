// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pybind11/pybind11.h>

namespace d3 {

// Adds CpuPlan, the plan of a param group on the CPU.
void bind_cpu(pybind11::module_& m);

}  // namespace d3
