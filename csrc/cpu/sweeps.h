// SPDX-License-Identifier: Apache-2.0
//
// The sweeps of the CPU backend over one chunk, compiled once per SIMD level and chosen at load.
// Every level gives the same bits: sums run over a fixed number of lanes and products are never
// contracted into fused multiply-adds.
#pragma once

#include <string>
#include <vector>

#include "step_math.h"
#include "stored.h"

namespace d3 {

// One chunk: arrays of n elements stored as K says; compensation, reference and momentum may be
// null where the sweep has no use for them.
template <class K>
struct Span {
  typename K::Weight* theta;
  typename K::Weight* compensation;
  const typename K::Reference* reference;
  typename K::Weight* grad;
  typename K::Momentum* momentum;
  int64_t n;
};

template <class K>
struct Sweeps {
  using T = typename K::T;
  // One step without projection; the sums stay zero for Tracking::none.
  Sums (*update)(const Span<K>&, Tracking, Momentum, const Scalars<T>&, T rate, T inverse);
  // Redoes the push of `update` (p2) with the right norm; the sums are those after it.
  Sums (*mend)(const Span<K>&, Momentum, const Scalars<T>&, T rate, T stale, T right);
  // Sum of (theta - reference)^2.
  double (*squared_distance)(const Span<K>&);
  // theta <- c * theta, or theta <- reference + c * (theta - reference).
  void (*rescale)(const Span<K>&, Center, T c);
  // grad <- grad / scale.
  void (*unscale)(const Span<K>&, T scale);
};

// The sweeps of one level for everything that can be stored. A base per storage and no function:
// one built for a level must not be linked into another.
template <class>
struct SweepsOf;
template <class... K>
struct SweepsOf<Storages<K...>> : Sweeps<K>... {};
using AllSweeps = SweepsOf<CpuStorages>;

// The sweeps of the level in use.
const AllSweeps& sweeps();

// Levels compiled in, best last, and the one in use: the best this CPU has, or D3FAST_SIMD.
std::vector<std::string> simd_levels();
std::string simd_level();

}  // namespace d3
