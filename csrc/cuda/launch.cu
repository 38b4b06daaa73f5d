// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>

#include <algorithm>
#include <sstream>
#include <stdexcept>

#include "cuda/launch.h"
#include "cuda/persistent.cuh"
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

constexpr int kWords = 480;  // with the other arguments below the 4 KiB a launch may carry

struct Words {
  int64_t x[kWords];
};

// Arguments are copied when a launch is enqueued or captured: no host memory has to outlive it.
__global__ void write_kernel(int64_t* to, const Words words, int count) {
  const int i = static_cast<int>(threadIdx.x);
  if (i < count) to[i] = words.x[i];
}

}  // namespace

int64_t cuda_chunk() { return kCudaChunk; }

std::vector<int64_t> cuda_order(const Cut& cut) { return order_of(cut, kResident); }

int64_t cuda_workspace_bytes(const Cut& cut) { return workspace_bytes(cut); }

template <class K>
void cuda_step(const Cut& cut, const CudaStep& call) {
  D3_CUDA_CHECK(cudaSetDevice(call.device));
  const auto stream = static_cast<cudaStream_t>(call.stream);
  enqueue<K>(cut, call, [stream](Kernel kernel, unsigned blocks, const DeviceStep& step) {
    kernel<<<blocks, kThreads, 0, stream>>>(step);
    D3_CUDA_CHECK(cudaGetLastError());
  });
}

CudaStepper cuda_stepper(const Dtypes& types) {
  CudaStepper found = nullptr;
  visit_storage(CudaStorages(), types,
                [&found](auto storage) { found = cuda_step<decltype(storage)>; });
  return found;
}

void cuda_write(int device, void* stream, void* to, const std::vector<int64_t>& words) {
  D3_CUDA_CHECK(cudaSetDevice(device));
  for (size_t at = 0; at < words.size(); at += kWords) {
    Words piece = {};
    const int count = static_cast<int>(std::min<size_t>(kWords, words.size() - at));
    std::copy_n(words.data() + at, count, piece.x);
    write_kernel<<<1, kWords, 0, static_cast<cudaStream_t>(stream)>>>(
        static_cast<int64_t*>(to) + at, piece, count);
    D3_CUDA_CHECK(cudaGetLastError());
  }
}

}  // namespace d3
