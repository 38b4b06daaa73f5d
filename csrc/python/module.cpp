// SPDX-License-Identifier: Apache-2.0
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>

#include "cpu/bind.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "python/plan.h"
#include "python/tensor_guard.h"

#if defined(D3_WITH_CUDA)
#include "cuda/bind.h"
#endif

namespace py = pybind11;

namespace {

py::dict build_info() {
  py::dict info;
#if defined(__clang__)
  info["compiler"] = std::string("clang ") + __clang_version__;
#elif defined(__GNUC__)
  info["compiler"] = std::string("gcc ") + __VERSION__;
#else
  info["compiler"] = "unknown";
#endif
  info["simd_levels"] = d3::simd_levels();
  info["simd_level"] = d3::simd_level();
  info["shares_openmp_pool"] = d3::shares_openmp_pool();
  info["cuda"] = D3_CUDA_VERSION;
  info["cuda_archs"] = D3_CUDA_ARCHS;
  return info;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Kernels of d3fast. Private: the public interface is d3fast.D3FusedSGD.";
  m.def("build_info", &build_info, "What the extension was built with and what it uses.");
  d3::bind_plan(m);
  d3::bind_guard(m);
  d3::bind_cpu(m);
#if defined(D3_WITH_CUDA)
  d3::bind_cuda(m);
#endif
}
