// SPDX-License-Identifier: Apache-2.0
//
// The elements that a thread processes together, and the loop over those of a chunk.
#pragma once

#include "cuda/reductions.cuh"

namespace d3 {

// U runs of weights, with their compensations where the type has them.
template <class Arrays, int U>
struct WeightRuns {
  using Weight = typename Arrays::Weight;
  static constexpr int N = Arrays::N;
  static constexpr bool kCompensated = Arrays::kCompensated;

  Packed<N, Weight> theta[U], compensation[kCompensated ? U : 1];

  template <bool kWhole, Read kRead>
  D3_DEVICE void load(const Arrays& a, int left) {
    load_runs<kWhole, kRead>(theta, a.theta, left);
    if constexpr (kCompensated) load_runs<kWhole, kRead>(compensation, a.compensation, left);
  }

  template <bool kWhole, Write kWrite>
  D3_DEVICE void store(const Arrays& a, int left) const {
    store_runs<kWhole, kWrite>(a.theta, left, theta);
    if constexpr (kCompensated) store_runs<kWhole, kWrite>(a.compensation, left, compensation);
  }

  D3_DEVICE Run<N> get(int u) const {
    Run<N> x = widen_run(theta[u]);
    if constexpr (kCompensated) {
      const Run<N> c = widen_run(compensation[u]);
#pragma unroll
      for (int k = 0; k < N; ++k) x.x[k] = kahan_load<Weight>(x.x[k], c.x[k]);
    }
    return x;
  }

  D3_DEVICE void set(int u, const Run<N>& x) {
    theta[u] = narrow_run<Weight>(x);
    if constexpr (kCompensated) {
      Run<N> c = widen_run(theta[u]);
#pragma unroll
      for (int k = 0; k < N; ++k) c.x[k] = x.x[k] - c.x[k];
      compensation[u] = narrow_run<Weight>(c);
    }
  }
};

// x / divisor, rounded correctly from |x| = 2^-100 on and to one of the two nearest numbers below.
// The compiler's own division takes a call, and registers for it.
D3_DEVICE float divide(float x, float divisor, float inverse) {
  const float quotient = x * inverse;
  const float better = fmaf(fmaf(-quotient, divisor, x), inverse, quotient);
  return quotient * 0 == 0 ? better : quotient;
}

// What the update of 8 elements loads, and stores.
template <class DTypes, bool kTracked, int kStates>
struct Batch {
  using Arrays = ChunkArrays<DTypes, kTracked, kStates>;
  using Weight = typename DTypes::Weight;
  using MomentumBuffer = typename DTypes::MomentumBuffer;
  static constexpr int N = Arrays::N, U = 8 / N;
  static constexpr int kLength = U * N * kThreads;  // of all threads

  WeightRuns<Arrays, U> weights;
  Packed<N, Weight> grad[U];
  Packed<N, typename DTypes::Reference> reference[U];
  Packed<N, MomentumBuffer> momentum[kStates > 0 ? U : 1];
  Packed<N, float> variance[kStates > 1 ? U : 1];

  template <bool kWhole>
  D3_DEVICE void load(const Arrays& a, int left) {
    weights.template load<kWhole, Read::keep>(a, left);
    load_runs<kWhole, Read::stream>(grad, a.grad, left);
    if constexpr (kTracked) load_runs<kWhole, Read::stream>(reference, a.reference, left);
    if constexpr (kStates > 0) load_runs<kWhole, Read::stream>(momentum, a.momentum, left);
    if constexpr (kStates > 1) load_runs<kWhole, Read::stream>(variance, a.variance, left);
  }

  template <bool kWhole>
  D3_DEVICE void store(const Arrays& a, int left) const {
    weights.template store<kWhole, Write::keep>(a, left);
    if constexpr (kStates > 0) store_runs<kWhole, Write::stream>(a.momentum, left, momentum);
    if constexpr (kStates > 1) store_runs<kWhole, Write::stream>(a.variance, left, variance);
  }

  // Divides the gradients in place.
  D3_DEVICE void unscale(const Arrays& a, int left, float scale) {
    const float inverse = 1 / scale;
#pragma unroll
    for (int u = 0; u < U; ++u) {
#pragma unroll
      for (int k = 0; k < N; ++k) {
        grad[u].x[k] = narrow<Weight>(divide(widen(grad[u].x[k]), scale, inverse));
      }
    }
    store_runs<false, Write::stream>(a.grad, left, grad);
  }

  // Replaces the elements by element(theta, reference, grad, buffers) and adds those that are there
  // to the sums.
  template <class Element>
  D3_DEVICE void compute(const Element& element, int left, Sums& sums) {
    RunSums few;
#pragma unroll
    for (int u = 0; u < U; ++u) {
      Run<N> x = weights.get(u);
#pragma unroll
      for (int k = 0; k < N; ++k) {
        const float before = x.x[k];
        float theta_0 = 0;
        Buffers<float> b;
        if constexpr (kTracked) theta_0 = widen(reference[u].x[k]);
        if constexpr (kStates > 0) b.momentum = widen(momentum[u].x[k]);
        if constexpr (kStates > 1) b.variance = variance[u].x[k];
        x.x[k] = element(before, theta_0, widen(grad[u].x[k]), b);
        if constexpr (kStates > 0) momentum[u].x[k] = narrow<MomentumBuffer>(b.momentum);
        if constexpr (kStates > 1) variance[u].x[k] = b.variance;
        if constexpr (kTracked) {
          if (u * N * kThreads + k < left) few.add(before - theta_0, x.x[k] - theta_0, x.x[k]);
        }
      }
      weights.set(u, x);
    }
    if constexpr (kTracked) few.add_to(sums);
  }
};

// Calls element(theta, reference, grad, buffers) -> theta on all elements of a chunk; returns this
// thread's sums. Gradients are divided by grad_scale, in place. All loads of a batch come before
// its stores, which the compiler could not move them past.
template <class DTypes, bool kTracked, int kStates, class Element>
D3_DEVICE Sums for_each_element(ChunkArrays<DTypes, kTracked, kStates> a, float grad_scale,
                                const Element& element) {
  using Elements = Batch<DTypes, kTracked, kStates>;
  const int first = Elements::N * static_cast<int>(threadIdx.x);
  const bool aligned = a.aligned();
  Sums sums;
  a.advance(first);
  for (int rest = a.n; rest > first; rest -= Elements::kLength, a.advance(Elements::kLength)) {
    const bool whole = aligned && rest >= Elements::kLength;
    const int left = rest - first;
    Elements batch;
    if (whole) {
      batch.template load<true>(a, left);
    } else {
      batch.template load<false>(a, left);
    }
    if (grad_scale != 1.0f) batch.unscale(a, left, grad_scale);
    batch.compute(element, left, sums);
    if (whole) {
      batch.template store<true>(a, left);
    } else {
      batch.template store<false>(a, left);
    }
  }
  return sums;
}

}  // namespace d3
