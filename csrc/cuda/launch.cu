// SPDX-License-Identifier: Apache-2.0
#include "cuda/launch.h"

#include <cuda_runtime.h>

#include <sstream>
#include <stdexcept>

#include "cuda/kernels.cuh"

#define D3_CUDA_CHECK(call)                                                               \
  do {                                                                                    \
    const cudaError_t error = (call);                                                     \
    if (error != cudaSuccess) {                                                           \
      std::ostringstream out;                                                             \
      out << #call << ": " << cudaGetErrorName(error) << ", " << cudaGetErrorString(error); \
      throw std::runtime_error(out.str());                                                \
    }                                                                                     \
  } while (false)

namespace d3 {
namespace {

// The statically linked runtime has a current device of its own, which torch does not set.
class OnDevice {
 public:
  explicit OnDevice(int device) {
    D3_CUDA_CHECK(cudaGetDevice(&before_));
    if (device != before_) D3_CUDA_CHECK(cudaSetDevice(device));
  }
  ~OnDevice() { cudaSetDevice(before_); }

 private:
  int before_ = 0;
};

template <Tracking K>
void launch_update(Momentum momentum, unsigned blocks, cudaStream_t stream, const DeviceStep& s) {
  switch (momentum) {
    case Momentum::none: update_kernel<K, Momentum::none><<<blocks, kThreads, 0, stream>>>(s); break;
    case Momentum::heavy_ball:
      update_kernel<K, Momentum::heavy_ball><<<blocks, kThreads, 0, stream>>>(s);
      break;
    case Momentum::nesterov:
      update_kernel<K, Momentum::nesterov><<<blocks, kThreads, 0, stream>>>(s);
      break;
  }
  D3_CUDA_CHECK(cudaGetLastError());
}

DeviceStep device_step(const Cut& cut, const CudaStep& call) {
  DeviceStep s;
  const char* table = static_cast<const char*>(call.table);
  s.segments = reinterpret_cast<const Segment*>(table);
  table += cut.segments.size() * sizeof(Segment);
  s.units = reinterpret_cast<const Unit*>(table);
  table += cut.units.size() * sizeof(Unit);
  s.chunks = reinterpret_cast<const Chunk*>(table);
  s.grads = static_cast<const GradEntry*>(call.grads);
  s.reference_norms = call.reference_norms;
  s.partial = static_cast<Sums*>(call.workspace);
  s.states = reinterpret_cast<UnitState*>(s.partial + cut.chunks.size());
  s.scalars = call.scalars;
  s.grad_scale = call.grad_scale;
  s.found_inf = call.found_inf;
  s.options = call.options;
  return s;
}

}  // namespace

int64_t cuda_chunk() { return kCudaChunk; }

int64_t cuda_workspace_bytes(const Cut& cut) {
  return static_cast<int64_t>(cut.chunks.size() * sizeof(Sums) + cut.units.size() * sizeof(UnitState));
}

void cuda_step(const Cut& cut, const CudaStep& call) {
  if (cut.chunks.empty()) return;
  const OnDevice guard(call.device);
  const auto stream = static_cast<cudaStream_t>(call.stream);
  const auto blocks = static_cast<unsigned>(cut.chunks.size());
  const DeviceStep s = device_step(cut, call);
  const StepOptions& o = call.options;
  const Momentum momentum = momentum_of(o.momentum, o.nesterov);
  const Tracking tracking =
      tracking_of(cut.segments[0].reference != nullptr, o.distance_weight, o.p);
  switch (tracking) {
    case Tracking::none: launch_update<Tracking::none>(momentum, blocks, stream, s); return;
    case Tracking::measured: launch_update<Tracking::measured>(momentum, blocks, stream, s); break;
    case Tracking::pushed_p1: launch_update<Tracking::pushed_p1>(momentum, blocks, stream, s); break;
    case Tracking::pushed_p2:
      if (call.verify || needs_verification(momentum, o.lr, o.weight_decay)) {
        verify_kernel<<<blocks, kThreads, 0, stream>>>(s);
        D3_CUDA_CHECK(cudaGetLastError());
      }
      launch_update<Tracking::pushed_p2>(momentum, blocks, stream, s);
      break;
  }
  if (static_cast<Center>(o.center) != Center::none) {
    project_kernel<<<blocks, kThreads, 0, stream>>>(s);
    D3_CUDA_CHECK(cudaGetLastError());
  }
}

}  // namespace d3
