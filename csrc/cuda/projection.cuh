// SPDX-License-Identifier: Apache-2.0
//
// The projection of one chunk: a second pass over its weights, which should still be in L2.
#pragma once

#include "cuda/batch.cuh"

namespace d3 {

// 16 elements: four loads of weights in flight.
template <Center kCenter, bool kWhole, class DTypes>
D3_DEVICE void project_batch(const ChunkArrays<DTypes, true, 0>& a, int left, float c) {
  constexpr int N = kElements<DTypes>, U = 16 / N;
  WeightRuns<ChunkArrays<DTypes, true, 0>, U> weights;
  Packed<N, typename DTypes::Reference> reference[U];
  weights.template load<kWhole, Read::bypass_l1>(a, left);
  if constexpr (kCenter == Center::reference) {
    load_runs<kWhole, Read::stream>(reference, a.reference, left);
  }
#pragma unroll
  for (int u = 0; u < U; ++u) {
    Run<N> x = weights.get(u);
#pragma unroll
    for (int k = 0; k < N; ++k) {
      if constexpr (kCenter == Center::reference) {
        const float theta_0 = widen(reference[u].x[k]);
        x.x[k] = theta_0 + c * (x.x[k] - theta_0);
      } else {
        x.x[k] *= c;
      }
    }
    weights.set(u, x);
  }
  weights.template store<kWhole, Write::stream>(a, left);
}

template <Center kCenter, class DTypes>
D3_DEVICE void rescale(ChunkArrays<DTypes, true, 0> a, float c) {
  constexpr int kLength = 16 * kThreads;
  const int first = kElements<DTypes> * static_cast<int>(threadIdx.x);
  const bool aligned = a.aligned();
  a.advance(first);
  for (int rest = a.n; rest > first; rest -= kLength, a.advance(kLength)) {
    if (aligned && rest >= kLength) {
      project_batch<kCenter, true>(a, rest - first, c);
    } else {
      project_batch<kCenter, false>(a, rest - first, c);
    }
  }
}

// Rescales one chunk by c, which is not 1, around the step's center.
template <class DTypes>
__device__ inline void project_chunk(const DeviceStep& step, const Chunk& chunk, float c) {
  const ChunkArrays<DTypes, true, 0> a(step, chunk);
  if (step.options.center == Center::origin) {
    rescale<Center::origin>(a, c);
  } else {
    rescale<Center::reference>(a, c);
  }
}

}  // namespace d3
