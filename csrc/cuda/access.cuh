// SPDX-License-Identifier: Apache-2.0
//
// Loads and stores of runs of elements: 16 bytes at a time, with cache hints.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "common/dtypes.h"

// Makes the compiler emit global instead of generic accesses for an address read from a table.
#if defined(__CUDACC__)
#define D3_ASSUME_GLOBAL(p) __builtin_assume(__isGlobal(p))
#else
#define D3_ASSUME_GLOBAL(p) static_cast<void>(p)
#endif

namespace d3 {

// Elements that a thread processes together: 16 bytes of weights, one access where the arrays are
// aligned. Elements go to the same threads where they are not, so the sums have the same bits.
template <class DTypes>
constexpr int kElements = 16 / sizeof(typename DTypes::Weight);

template <int N>
struct Run {
  float x[N];
};

__device__ inline bool aligned16(const void* p) {
  return (reinterpret_cast<uintptr_t>(p) & 15) == 0;
}

// The cache hint of a load. keep: needed again soon (the weights, by the projection). stream: not
// needed again, evicted from L2 first. bypass_l1: written by another block of this
// launch, which L1 does not see.
enum class Read { keep, stream, bypass_l1 };

template <Read kRead, class Piece>
__device__ inline Piece read(const Piece* p) {
  if constexpr (kRead == Read::keep) {
    return *p;
  } else {
    return kRead == Read::stream ? __ldcs(p) : __ldcg(p);
  }
}

template <Read kRead, class Stored>
__device__ inline Stored read_one(const Stored* p) {
  if constexpr (kRead != Read::bypass_l1) {
    return *p;
  } else if constexpr (DTypeTraits<Stored>::kHalf) {
    return {__ldcg(&p->bits)};
  } else {
    return __ldcg(p);
  }
}

// The part of a run that one access loads or stores.
template <int N, class Stored>
using PieceOf = std::conditional_t<N * sizeof(Stored) >= 16, uint4, uint2>;

template <int N, Read kRead, class Stored>
__device__ inline Run<N> load_run(const Stored* p, int64_t at, int64_t n, bool aligned) {
  D3_ASSUME_GLOBAL(p);
  Stored stored[N];
  if (aligned && at + N <= n) {
    using Piece = PieceOf<N, Stored>;
    Piece pieces[sizeof(stored) / sizeof(Piece)];
    const Piece* from = reinterpret_cast<const Piece*>(p + at);
#pragma unroll
    for (size_t k = 0; k < sizeof(stored) / sizeof(Piece); ++k) pieces[k] = read<kRead>(from + k);
    memcpy(stored, pieces, sizeof(stored));
  } else {
#pragma unroll
    for (int k = 0; k < N; ++k) stored[k] = at + k < n ? read_one<kRead>(p + at + k) : Stored();
  }
  Run<N> run;
#pragma unroll
  for (int k = 0; k < N; ++k) run.x[k] = widen(stored[k]);
  return run;
}

template <int N, class Stored>
__device__ inline void store_run(Stored* p, int64_t at, int64_t n, bool aligned,
                                 const Run<N>& run) {
  D3_ASSUME_GLOBAL(p);
  Stored stored[N];
#pragma unroll
  for (int k = 0; k < N; ++k) stored[k] = narrow<Stored>(run.x[k]);
  if (aligned && at + N <= n) {
    using Piece = PieceOf<N, Stored>;
    Piece pieces[sizeof(stored) / sizeof(Piece)];
    memcpy(pieces, stored, sizeof(stored));
    Piece* to = reinterpret_cast<Piece*>(p + at);
#pragma unroll
    for (size_t k = 0; k < sizeof(stored) / sizeof(Piece); ++k) to[k] = pieces[k];
    return;
  }
#pragma unroll
  for (int k = 0; k < N; ++k) {
    if (at + k < n) p[at + k] = stored[k];
  }
}

}  // namespace d3
