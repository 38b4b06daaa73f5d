// SPDX-License-Identifier: Apache-2.0
//
// One optimizer step on a CUDA device: one launch whatever the number of tensors, a second where
// carried norms have to be verified first. Nothing waits for the device.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

namespace d3 {

// Adds CudaPlan to the module.
void bind_cuda(pybind11::module_& m);

}  // namespace d3
