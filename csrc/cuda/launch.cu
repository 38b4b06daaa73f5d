// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>

#include <sstream>
#include <stdexcept>

#include "cuda/kernels.cuh"
#include "cuda/launch.h"
#include "cuda/sequence.h"

#define D3_CUDA_CHECK(call)                                                                 \
  do {                                                                                      \
    const cudaError_t error = (call);                                                       \
    if (error != cudaSuccess) {                                                             \
      std::ostringstream out;                                                               \
      out << #call << ": " << cudaGetErrorName(error) << ", " << cudaGetErrorString(error); \
      throw std::runtime_error(out.str());                                                  \
    }                                                                                       \
  } while (false)

namespace d3 {
namespace {

// The statically linked runtime has a current device of its own, which torch does not set.
class OnDevice {
 public:
  explicit OnDevice(int device) {
    D3_CUDA_CHECK(cudaGetDevice(&before_));
    D3_CUDA_CHECK(cudaSetDevice(device));
  }
  ~OnDevice() { cudaSetDevice(before_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int before_ = 0;
};

}  // namespace

int64_t cuda_chunk() { return kCudaChunk; }

int64_t cuda_workspace_bytes(const Cut& cut) { return workspace_bytes(cut); }

void cuda_step(const Cut& cut, const CudaStep& call) {
  const OnDevice guard(call.device);
  const auto stream = static_cast<cudaStream_t>(call.stream);
  enqueue(cut, call, [stream](Kernel kernel, unsigned blocks, const DeviceStep& step) {
    kernel<<<blocks, kThreads, 0, stream>>>(step);
    D3_CUDA_CHECK(cudaGetLastError());
  });
}

}  // namespace d3
