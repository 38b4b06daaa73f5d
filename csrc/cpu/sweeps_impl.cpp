// SPDX-License-Identifier: Apache-2.0
//
// Compiled once per SIMD level; D3_SIMD_LEVEL names it. Everything here has internal linkage but
// the two tables at the end, so that no function built for one level can be linked into another.
#include "cpu/sweeps.h"

// Behind a lambda's parameter list; a lambda left as a call would lose its vectors to the stack.
#define D3_INLINE __attribute__((always_inline))

namespace d3 {
namespace {

// Elements per vector, the same at every SIMD level: so are the sums' bits.
constexpr int kLanes = 8;
// Sums run over this many vectors in T before they are added up in double.
constexpr int kRun = 64;

// GCC/Clang vectors; the second form loads from any aligned element.
template <class T>
struct Lanes;
template <>
struct Lanes<float> {
  typedef float V __attribute__((vector_size(4 * kLanes)));
  typedef float Unaligned __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
};
template <>
struct Lanes<double> {
  typedef double V __attribute__((vector_size(8 * kLanes)));
  typedef double Unaligned __attribute__((vector_size(8 * kLanes), aligned(8), may_alias));
};
template <class T>
using Vec = typename Lanes<T>::V;

// Fewer than kLanes elements at the end of an array are padded with zeros, which add nothing.
template <class T>
D3_HD Vec<T> load(const T* p, int count) {
  if (count == kLanes) return *reinterpret_cast<const typename Lanes<T>::Unaligned*>(p);
  Vec<T> x{};
  for (int i = 0; i < count; ++i) x[i] = p[i];
  return x;
}
template <class T>
D3_HD void store(T* p, Vec<T> x, int count) {
  if (count == kLanes) {
    *reinterpret_cast<typename Lanes<T>::Unaligned*>(p) = x;
  } else {
    for (int i = 0; i < count; ++i) p[i] = x[i];
  }
}

// Asks for the line kAhead bytes on: the CPU's own prefetchers lag behind this many streams. The
// line may lie past the array, where prefetching is harmless but pointer arithmetic is not.
constexpr std::uintptr_t kLine = 64, kAhead = 2048;
template <bool kWrite, class T>
D3_HD void prefetch(const T* p) {
  const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(p) + kAhead;
  __builtin_prefetch(reinterpret_cast<const void*>(address), kWrite);
}

template <class V>
D3_HD double total(const V& x) {
  double sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += x[i];
  return sum;
}

// The sums of one run, lane by lane.
template <class T>
struct RunSums {
  Vec<T> before{}, after{}, weight{}, inner{};

  D3_HD void add(Vec<T> delta_before, Vec<T> delta, Vec<T> theta) {
    before += delta_before * delta_before;
    after += delta * delta;
    weight += theta * theta;
    inner += delta * theta;
  }
  D3_HD Sums sums() const { return {total(before), total(after), total(weight), total(inner)}; }
};

// Calls body(i, count, sums) for every kLanes elements of n; count is less in the last call only.
template <class T, class Body>
D3_HD Sums accumulate(int64_t n, const Body& body) {
  Sums sums;
  const int64_t whole = n - n % kLanes;
  for (int64_t i = 0; i < whole;) {
    const int64_t end = whole - i < kRun * kLanes ? whole : i + kRun * kLanes;
    RunSums<T> run;
    for (; i < end; i += kLanes) body(i, kLanes, run);
    sums.add(run.sums());
  }
  if (whole < n) {
    RunSums<T> run;
    body(whole, static_cast<int>(n - whole), run);
    sums.add(run.sums());
  }
  return sums;
}

template <class T, bool kTracked, Push P, Momentum M>
Sums update(const Span<T>& a, const Scalars<T>& given, T rate, T inverse) {
  const Scalars<T> s = given;  // a copy: stores to theta cannot alias it
  T* __restrict__ const theta = a.theta;
  const T* __restrict__ const reference = a.reference;
  const T* __restrict__ const grad = a.grad;
  T* __restrict__ const momentum = a.momentum;
  return accumulate<T>(a.n, [=](int64_t i, int count, RunSums<T>& sums) D3_INLINE {
    if (i * sizeof(T) % kLine == 0) {
      prefetch<true>(theta + i);
      prefetch<false>(grad + i);
      if constexpr (kTracked) prefetch<false>(reference + i);
      if constexpr (M != Momentum::none) prefetch<true>(momentum + i);
    }
    const Vec<T> was = load(theta + i, count);
    Vec<T> theta_0{}, v{};
    if constexpr (kTracked) theta_0 = load(reference + i, count);
    if constexpr (M != Momentum::none) v = load<T>(momentum + i, count);
    const Vec<T> delta = was - theta_0;
    const Vec<T> next = advance<T, P, M>(was, delta, load(grad + i, count), v, s, rate, inverse);
    store(theta + i, next, count);
    if constexpr (M != Momentum::none) store(momentum + i, v, count);
    if constexpr (kTracked) sums.add(delta, next - theta_0, next);
  });
}

template <class T, Momentum M>
Sums mend_chunk(const Span<T>& a, const Scalars<T>& s, T rate, T stale, T right) {
  return accumulate<T>(a.n, [=](int64_t i, int count, RunSums<T>& sums) D3_INLINE {
    const Vec<T> was = load<T>(a.theta + i, count), theta_0 = load(a.reference + i, count);
    Vec<T> v{};
    if constexpr (M != Momentum::none) v = load<T>(a.momentum + i, count);
    const Vec<T> grad = load<T>(a.grad + i, count);
    const Vec<T> next = mend<T, M>(was, theta_0, grad, v, s, rate, stale, right);
    store(a.theta + i, next, count);
    if constexpr (M != Momentum::none) store(a.momentum + i, v, count);
    sums.add(was - theta_0, next - theta_0, next);
  });
}

template <class T, Momentum M>
Sums update_as(const Span<T>& a, Tracking tracking, const Scalars<T>& s, T rate, T inverse) {
  switch (tracking) {
    case Tracking::measured:
      return update<T, true, Push::none, M>(a, s, rate, inverse);
    case Tracking::pushed_p1:
      return update<T, true, Push::p1, M>(a, s, rate, inverse);
    case Tracking::pushed_p2:
      return update<T, true, Push::p2, M>(a, s, rate, inverse);
    default:
      return update<T, false, Push::none, M>(a, s, rate, inverse);
  }
}

template <class T>
Sums any_update(const Span<T>& a, Tracking tracking, Momentum momentum, const Scalars<T>& s, T rate,
                T inverse) {
  switch (momentum) {
    case Momentum::heavy_ball:
      return update_as<T, Momentum::heavy_ball>(a, tracking, s, rate, inverse);
    case Momentum::nesterov:
      return update_as<T, Momentum::nesterov>(a, tracking, s, rate, inverse);
    default:
      return update_as<T, Momentum::none>(a, tracking, s, rate, inverse);
  }
}

template <class T>
Sums any_mend(const Span<T>& a, Momentum momentum, const Scalars<T>& s, T rate, T stale, T right) {
  switch (momentum) {
    case Momentum::heavy_ball:
      return mend_chunk<T, Momentum::heavy_ball>(a, s, rate, stale, right);
    case Momentum::nesterov:
      return mend_chunk<T, Momentum::nesterov>(a, s, rate, stale, right);
    default:
      return mend_chunk<T, Momentum::none>(a, s, rate, stale, right);
  }
}

// Same lanes and order as in `update`: without a projection it gives the carried norm's bits.
template <class T>
double squared_distance(const Span<T>& a) {
  return accumulate<T>(a.n,
                       [=](int64_t i, int count, RunSums<T>& sums) D3_INLINE {
                         const Vec<T> delta =
                             load<T>(a.theta + i, count) - load(a.reference + i, count);
                         sums.after += delta * delta;
                       })
      .after;
}

template <class T>
void rescale(const Span<T>& a, Center center, T c) {
  if (center == Center::origin) {
    for (int64_t i = 0; i < a.n; ++i) a.theta[i] *= c;
  } else {
    for (int64_t i = 0; i < a.n; ++i) {
      a.theta[i] = a.reference[i] + c * (a.theta[i] - a.reference[i]);
    }
  }
}

template <class T>
void unscale(const Span<T>& a, T scale) {
  for (int64_t i = 0; i < a.n; ++i) a.grad[i] /= scale;
}

template <class T>
constexpr Sweeps<T> kTable = {any_update<T>, any_mend<T>, squared_distance<T>, rescale<T>,
                              unscale<T>};

}  // namespace

#define D3_CONCAT_(a, b) a##b
#define D3_CONCAT(a, b) D3_CONCAT_(a, b)
const Sweeps<float>& D3_CONCAT(sweeps_f32_, D3_SIMD_LEVEL)() { return kTable<float>; }
const Sweeps<double>& D3_CONCAT(sweeps_f64_, D3_SIMD_LEVEL)() { return kTable<double>; }

}  // namespace d3
