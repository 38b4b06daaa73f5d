// SPDX-License-Identifier: Apache-2.0
//
// The sweeps of the CPU backend over one chunk, compiled once per SIMD level and chosen at load.
// Every level gives the same bits: sums run over a fixed number of lanes and products are never
// contracted into fused multiply-adds.
#pragma once

#include <string>
#include <vector>

#include "step_math.h"

namespace d3 {

// One chunk: arrays of n elements; reference and momentum may be null where the sweep has no use
// for them.
template <class T>
struct Span {
  T* theta;
  const T* reference;
  T* grad;
  T* momentum;
  int64_t n;
};

template <class T>
struct Sweeps {
  // One step without projection; the sums stay zero for Tracking::none.
  Sums (*update)(const Span<T>&, Tracking, Momentum, const Scalars<T>&, T rate, T inverse);
  // Redoes the push of `update` (p2) with the right norm; the sums are those after it.
  Sums (*mend)(const Span<T>&, Momentum, const Scalars<T>&, T rate, T stale, T right);
  // Sum of (theta - reference)^2.
  double (*squared_distance)(const Span<T>&);
  // theta <- c * theta, or theta <- reference + c * (theta - reference).
  void (*rescale)(const Span<T>&, Center, T c);
  // grad <- grad / scale.
  void (*unscale)(const Span<T>&, T scale);
};

// The sweeps of the level in use.
template <class T>
const Sweeps<T>& sweeps();

// Levels compiled in, best last, and the one in use: the best this CPU has, or D3FAST_SIMD.
std::vector<std::string> simd_levels();
std::string simd_level();

}  // namespace d3
