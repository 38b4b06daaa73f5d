// SPDX-License-Identifier: Apache-2.0
//
// How the kernels read and write runs of float32: four at a time, and with a word to the caches.
#pragma once

#include <cstdint>

// An address out of a table could lead anywhere, for all the compiler knows. Told that it leads to
// global memory, it emits global instead of generic accesses.
#if defined(__CUDACC__)
#define D3_ASSUME_GLOBAL(p) __builtin_assume(__isGlobal(p))
#else
#define D3_ASSUME_GLOBAL(p) static_cast<void>(p)
#endif

namespace d3 {

// Four elements a thread handles together; one 16-byte access where the arrays allow it. The
// assignment of elements to threads is the same either way, and so are the sums' bits.
struct alignas(16) Four {
  float x[4];
};

__device__ inline bool aligned16(const void* p) {
  return (reinterpret_cast<uintptr_t>(p) & 15) == 0;
}

// How a value is read: `stays` may be wanted again soon (the weights, by the projection), `passes`
// is not and gives way in the second-level cache first, `others` was written by another block of
// this launch, which the first-level cache does not see.
enum class Read { stays, passes, others };

template <Read R>
__device__ inline Four load4(const float* p, int64_t at, int64_t n, bool aligned) {
  D3_ASSUME_GLOBAL(p);
  if (aligned && at + 4 <= n) {
    if constexpr (R == Read::stays) {
      return *reinterpret_cast<const Four*>(p + at);
    } else {
      const float4* from = reinterpret_cast<const float4*>(p + at);
      const float4 v = R == Read::passes ? __ldcs(from) : __ldcg(from);
      return {{v.x, v.y, v.z, v.w}};
    }
  }
  Four r = {{0, 0, 0, 0}};
  for (int k = 0; k < 4; ++k) {
    if (at + k < n) r.x[k] = R == Read::others ? __ldcg(p + at + k) : p[at + k];
  }
  return r;
}

__device__ inline void store4(float* p, int64_t at, int64_t n, bool aligned, const Four& v) {
  D3_ASSUME_GLOBAL(p);
  if (aligned && at + 4 <= n) {
    *reinterpret_cast<Four*>(p + at) = v;
    return;
  }
  for (int k = 0; k < 4; ++k) {
    if (at + k < n) p[at + k] = v.x[k];
  }
}

}  // namespace d3
