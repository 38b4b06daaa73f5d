// SPDX-License-Identifier: Apache-2.0
//
// How the kernels read and write runs of elements: 16 bytes at a time, and with a word to the
// caches.
#pragma once

#include <cstdint>
#include <cstring>

#include "stored.h"

// An address out of a table could lead anywhere, for all the compiler knows. Told that it leads to
// global memory, it emits global instead of generic accesses.
#if defined(__CUDACC__)
#define D3_ASSUME_GLOBAL(p) __builtin_assume(__isGlobal(p))
#else
#define D3_ASSUME_GLOBAL(p) static_cast<void>(p)
#endif

namespace d3 {

// Elements a thread handles together, so many that weights come 16 bytes at a time where the arrays
// allow it. The assignment of elements to threads is the same either way, and so are the sums'
// bits.
template <class K>
constexpr int kElements = 16 / sizeof(typename K::Weight);

template <int N>
struct Run {
  float x[N];
};

__device__ inline bool aligned16(const void* p) {
  return (reinterpret_cast<uintptr_t>(p) & 15) == 0;
}

// How a value is read: `stays` may be wanted again soon (the weights, by the projection), `passes`
// is not and gives way in the second-level cache first, `others` was written by another block of
// this launch, which the first-level cache does not see.
enum class Read { stays, passes, others };

template <Read R, class P>
__device__ inline P read(const P* p) {
  if constexpr (R == Read::stays) {
    return *p;
  } else {
    return R == Read::passes ? __ldcs(p) : __ldcg(p);
  }
}

template <Read R, class S>
__device__ inline S read_one(const S* p) {
  if constexpr (R != Read::others) {
    return *p;
  } else if constexpr (Stored<S>::kHalf) {
    return {__ldcg(&p->bits)};
  } else {
    return __ldcg(p);
  }
}

// What one access takes of a run.
template <int N, class S>
using Piece = std::conditional_t<N * sizeof(S) >= 16, uint4, uint2>;

template <int N, Read R, class S>
__device__ inline Run<N> load_run(const S* p, int64_t at, int64_t n, bool aligned) {
  D3_ASSUME_GLOBAL(p);
  S stored[N];
  if (aligned && at + N <= n) {
    using P = Piece<N, S>;
    P pieces[sizeof(stored) / sizeof(P)];
    const P* from = reinterpret_cast<const P*>(p + at);
#pragma unroll
    for (size_t k = 0; k < sizeof(stored) / sizeof(P); ++k) pieces[k] = read<R>(from + k);
    memcpy(stored, pieces, sizeof(stored));
  } else {
#pragma unroll
    for (int k = 0; k < N; ++k) stored[k] = at + k < n ? read_one<R>(p + at + k) : S();
  }
  Run<N> run;
#pragma unroll
  for (int k = 0; k < N; ++k) run.x[k] = widen(stored[k]);
  return run;
}

template <int N, class S>
__device__ inline void store_run(S* p, int64_t at, int64_t n, bool aligned, const Run<N>& run) {
  D3_ASSUME_GLOBAL(p);
  S stored[N];
#pragma unroll
  for (int k = 0; k < N; ++k) stored[k] = narrow<S>(run.x[k]);
  if (aligned && at + N <= n) {
    using P = Piece<N, S>;
    P pieces[sizeof(stored) / sizeof(P)];
    memcpy(pieces, stored, sizeof(stored));
    P* to = reinterpret_cast<P*>(p + at);
#pragma unroll
    for (size_t k = 0; k < sizeof(stored) / sizeof(P); ++k) to[k] = pieces[k];
    return;
  }
#pragma unroll
  for (int k = 0; k < N; ++k) {
    if (at + k < n) p[at + k] = stored[k];
  }
}

}  // namespace d3
