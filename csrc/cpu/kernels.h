// SPDX-License-Identifier: Apache-2.0
//
// The kernels of the CPU backend over one chunk, compiled once per SIMD level and chosen at load.
// Every level gives the same bits: sums run over a fixed number of lanes and products are never
// contracted into fused multiply-adds.
#pragma once

#include <string>
#include <vector>

#include "common/dtypes.h"
#include "common/step_math.h"

namespace d3 {

// One chunk: arrays of n elements; compensation, reference, momentum and variance may be null where
// the kernel does not use them.
template <class DTypes>
struct ChunkArrays {
  typename DTypes::Weight* theta;
  typename DTypes::Weight* compensation;
  const typename DTypes::Reference* reference;
  typename DTypes::Weight* grad;
  typename DTypes::MomentumBuffer* momentum;
  typename DTypes::Real* variance;
  int64_t n;
};

template <class DTypes>
struct Kernels {
  using Real = typename DTypes::Real;
  using Arrays = ChunkArrays<DTypes>;
  // One step without projection; the sums stay zero for Tracking::none.
  Sums (*update)(const Arrays&, Tracking, UpdateRule, const Scalars<Real>&, const Rates<Real>&,
                 Real inverse);
  // Replaces the push of `update` (p = 2) by that of the right norm; the sums are those after it.
  Sums (*correct_stale_norm)(const Arrays&, UpdateRule, const Scalars<Real>&, const Rates<Real>&,
                             Real stale, Real right);
  // Sum of (theta - reference)^2.
  double (*squared_distance)(const Arrays&);
  // theta <- c * theta, or theta <- reference + c * (theta - reference).
  void (*rescale)(const Arrays&, Center, Real c);
  // grad <- grad / scale.
  void (*unscale)(const Arrays&, Real scale);
};

// The kernels of one level for all dtypes. One base class per triple instead of a lookup function:
// a function built for one level must not be linked into another.
template <class>
struct KernelsFor;
template <class... Triples>
struct KernelsFor<DTypeTriples<Triples...>> : Kernels<Triples>... {};
using AllKernels = KernelsFor<CpuDTypes>;

// The kernels of the level in use.
const AllKernels& kernels();

// Levels compiled in, best last, and the one in use: the best this CPU has, or D3FAST_SIMD.
std::vector<std::string> simd_levels();
std::string simd_level();

}  // namespace d3
