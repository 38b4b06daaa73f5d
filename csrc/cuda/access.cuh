// SPDX-License-Identifier: Apache-2.0
//
// Loads and stores of runs of elements: 16 bytes at a time where an array is aligned, with cache
// hints. A run is loaded as it lies in memory and widened later, so that the loads of several runs
// and arrays are in flight before the first of them is waited for.
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

// For functions that take or return runs: a call would pass them through memory.
#define D3_DEVICE __device__ inline __attribute__((always_inline))

namespace d3 {

constexpr int kThreads = 256;  // per block, a power of two

// Elements of a run: 16 bytes of weights.
template <class DTypes>
constexpr int kElements = 16 / sizeof(typename DTypes::Weight);

// A run as it is computed with, and as it lies in memory.
template <int N>
struct Run {
  float x[N];
};
template <int N, class Stored>
struct Packed {
  Stored x[N];
};

template <int N, class Stored>
D3_DEVICE Run<N> widen_run(const Packed<N, Stored>& packed) {
  Run<N> run;
#pragma unroll
  for (int k = 0; k < N; ++k) run.x[k] = widen(packed.x[k]);
  return run;
}

template <class Stored, int N>
D3_DEVICE Packed<N, Stored> narrow_run(const Run<N>& run) {
  Packed<N, Stored> packed;
#pragma unroll
  for (int k = 0; k < N; ++k) packed.x[k] = narrow<Stored>(run.x[k]);
  return packed;
}

// The cache hint of a load. keep: needed again soon (the weights, by the projection). stream: not
// needed again, evicted from L2 first. bypass_l1: written by another block of this launch, which L1
// does not see.
enum class Read { keep, stream, bypass_l1 };

// The cache hint of a store, as above. gpu-check also builds without streaming, to compare.
enum class Write { keep, stream };
#if defined(D3_KEEP_STORES)
constexpr bool kStreamsStores = false;
#else
constexpr bool kStreamsStores = true;
#endif

// The part of a run that one access loads or stores.
template <int N, class Stored>
using PieceOf = std::conditional_t<N * sizeof(Stored) >= 16, uint4, uint2>;

// Whether runs of an array can be accessed piece by piece.
template <int N, class Stored>
D3_DEVICE bool aligned(const Stored* p) {
  return reinterpret_cast<uintptr_t>(p) % sizeof(PieceOf<N, Stored>) == 0;
}

template <Read kRead, class Piece>
D3_DEVICE Piece read(const Piece* p) {
  if constexpr (kRead == Read::keep) {
    return *p;
  } else {
    return kRead == Read::stream ? __ldcs(p) : __ldcg(p);
  }
}

template <Read kRead, class Stored>
D3_DEVICE Stored read_one(const Stored* p) {
  if constexpr (kRead != Read::bypass_l1) {
    return *p;
  } else if constexpr (DTypeTraits<Stored>::kHalf) {
    return {__ldcg(&p->bits)};
  } else {
    return __ldcg(p);
  }
}

// All of a run, piece by piece.
template <int N, Read kRead, class Stored>
D3_DEVICE Packed<N, Stored> load_whole(const Stored* p) {
  using Piece = PieceOf<N, Stored>;
  constexpr int kPieces = sizeof(Packed<N, Stored>) / sizeof(Piece);
  Piece pieces[kPieces];
  const Piece* from = reinterpret_cast<const Piece*>(p);
#pragma unroll
  for (int k = 0; k < kPieces; ++k) pieces[k] = read<kRead>(from + k);
  Packed<N, Stored> packed;
  memcpy(&packed, pieces, sizeof(packed));
  return packed;
}

template <int N, Write kWrite, class Stored>
D3_DEVICE void store_whole(Stored* p, const Packed<N, Stored>& packed) {
  using Piece = PieceOf<N, Stored>;
  constexpr int kPieces = sizeof(Packed<N, Stored>) / sizeof(Piece);
  Piece pieces[kPieces];
  memcpy(pieces, &packed, sizeof(packed));
  Piece* to = reinterpret_cast<Piece*>(p);
#pragma unroll
  for (int k = 0; k < kPieces; ++k) {
    if constexpr (kWrite == Write::stream && kStreamsStores) {
      __stcs(to + k, pieces[k]);
    } else {
      to[k] = pieces[k];
    }
  }
}

// What a thread processes together: U runs, kThreads runs apart, the first at p; `left` elements
// are there from p on. kWhole: the array is aligned and all of the runs' elements are there. Where
// it does not hold, the elements still go to the same threads, and sums over them have the same
// bits.
template <bool kWhole, Read kRead, int U, int N, class Stored>
D3_DEVICE void load_runs(Packed<N, Stored> (&to)[U], const Stored* p, int left) {
  D3_ASSUME_GLOBAL(p);
#pragma unroll
  for (int u = 0; u < U; ++u) {
    const int at = u * N * kThreads;
    if (kWhole || (aligned<N>(p) && at + N <= left)) {
      to[u] = load_whole<N, kRead>(p + at);
    } else {
#pragma unroll
      for (int k = 0; k < N; ++k) {
        to[u].x[k] = at + k < left ? read_one<kRead>(p + at + k) : Stored();
      }
    }
  }
}

template <bool kWhole, Write kWrite, int U, int N, class Stored>
D3_DEVICE void store_runs(Stored* p, int left, const Packed<N, Stored> (&from)[U]) {
  D3_ASSUME_GLOBAL(p);
#pragma unroll
  for (int u = 0; u < U; ++u) {
    const int at = u * N * kThreads;
    if (kWhole || (aligned<N>(p) && at + N <= left)) {
      store_whole<N, kWrite>(p + at, from[u]);
    } else {
#pragma unroll
      for (int k = 0; k < N; ++k) {
        if (at + k < left) p[at + k] = from[u].x[k];
      }
    }
  }
}

}  // namespace d3
