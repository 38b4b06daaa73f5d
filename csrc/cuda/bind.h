// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pybind11/pybind11.h>

namespace d3 {

// Adds CudaPlan, the plan of a param group on a CUDA device.
void bind_cuda(pybind11::module_& m);

}  // namespace d3
