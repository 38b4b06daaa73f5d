// SPDX-License-Identifier: Apache-2.0
#include <cuda_runtime.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <utility>

#include "common/check.h"
#include "cuda/dispatch.cuh"
#include "cuda/launch.h"

namespace d3 {
namespace {

constexpr int kWords = 480;  // with the other arguments below the 4 KiB that a launch may carry

struct Words {
  int64_t x[kWords];
};

__global__ void write_kernel(int64_t* to, const Words words, int count) {
  const int i = static_cast<int>(threadIdx.x);
  if (i < count) to[i] = words.x[i];
}

// Starts kernels on a stream of the current device.
class StreamLauncher {
 public:
  StreamLauncher(int device, void* stream)
      : device_(device), stream_(static_cast<cudaStream_t>(stream)) {}

  void launch(Kernel kernel, unsigned blocks, const DeviceStep& step) const {
    kernel<<<blocks, kThreads, 0, stream_>>>(step);
    D3_CUDA_CHECK(cudaGetLastError());
  }

  // Asked of the runtime once per kernel and device: a step has no time for it.
  unsigned resident_blocks(Kernel kernel) const {
    static std::mutex mutex;
    static std::map<std::pair<Kernel, int>, unsigned> known;
    const std::lock_guard<std::mutex> lock(mutex);
    unsigned& blocks = known[{kernel, device_}];
    if (blocks == 0) {
      int per_sm = 0, sms = 0;
      D3_CUDA_CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_sm, kernel, kThreads, 0));
      D3_CUDA_CHECK(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device_));
      blocks = static_cast<unsigned>(std::max(1, per_sm * sms));
    }
    return blocks;
  }

 private:
  int device_;
  cudaStream_t stream_;
};

template <class DTypes>
void launch_step(const Partition& partition, const CudaStep& call) {
  D3_CUDA_CHECK(cudaSetDevice(call.device));
  enqueue<DTypes>(partition, call, StreamLauncher(call.device, call.stream));
}

}  // namespace

int64_t cuda_chunk() { return kCudaChunk; }

int64_t cuda_resident_blocks(const DTypeNames& dtypes, int device) {
  D3_CUDA_CHECK(cudaSetDevice(device));
  int64_t blocks = 1;
  visit_dtypes(CudaDTypes(), dtypes, [&](auto triple) {
    blocks = StreamLauncher(device, nullptr).resident_blocks(typical_kernel<decltype(triple)>());
  });
  return blocks;
}

CudaLaunch cuda_launch(const DTypeNames& dtypes) {
  CudaLaunch found = nullptr;
  visit_dtypes(CudaDTypes(), dtypes,
               [&found](auto triple) { found = launch_step<decltype(triple)>; });
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

bool cuda_is_capturing(int device, void* stream) {
  D3_CUDA_CHECK(cudaSetDevice(device));
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  D3_CUDA_CHECK(cudaStreamIsCapturing(static_cast<cudaStream_t>(stream), &status));
  return status != cudaStreamCaptureStatusNone;
}

std::string cuda_obstacle(int device, const DTypeNames& dtypes) {
  cudaError_t error = cudaSetDevice(device);
  visit_dtypes(CudaDTypes(), dtypes, [&error](auto triple) {
    cudaFuncAttributes attributes;
    if (error == cudaSuccess) {
      error = cudaFuncGetAttributes(&attributes, verify_kernel<decltype(triple)>);
    }
  });
  if (error == cudaSuccess) return "";
  cudaGetLastError();  // or the next check would find it
  return cudaGetErrorString(error);
}

}  // namespace d3
