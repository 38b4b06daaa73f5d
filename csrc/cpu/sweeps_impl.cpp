// SPDX-License-Identifier: Apache-2.0
//
// Compiled once per SIMD level; D3_SIMD_LEVEL names it. Everything here has internal linkage but
// the two tables at the end, so that no function built for one level can be linked into another.
#include "cpu/sweeps.h"

namespace d3 {
namespace {

constexpr int kLanes = 8;

// Eight elements as GCC/Clang vectors; the second form loads from any aligned element.
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
using Wide = Vec<double>;

template <class T>
D3_HD Vec<T> load(const T* p) {
  return *reinterpret_cast<const typename Lanes<T>::Unaligned*>(p);
}
template <class T>
D3_HD void store(T* p, Vec<T> x) {
  *reinterpret_cast<typename Lanes<T>::Unaligned*>(p) = x;
}
template <class V>
D3_HD Wide widen(V x) {
  return __builtin_convertvector(x, Wide);
}

D3_HD double total(const Wide& x) {
  return ((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7]));
}

struct WideSums {
  Wide before = {}, after = {}, weight = {}, inner = {};

  template <class V>
  D3_HD void add(V was, V is, V reference) {
    const Wide w = widen(is), r = widen(reference);
    const Wide old = widen(was) - r, delta = w - r;
    before += old * old;
    after += delta * delta;
    weight += w * w;
    inner += delta * w;
  }
  D3_HD void add_one(int lane, double was, double is, double reference) {
    const double old = was - reference, delta = is - reference;
    before[lane] += old * old;
    after[lane] += delta * delta;
    weight[lane] += is * is;
    inner[lane] += delta * is;
  }
  D3_HD Sums sums() const { return {total(before), total(after), total(weight), total(inner)}; }
};

template <class T, bool kTracked, Push P, Momentum M>
Sums update(const Span<T>& a, const Scalars<T>& s, T rate, T inverse) {
  WideSums sums;
  int64_t i = 0;
  for (; i + kLanes <= a.n; i += kLanes) {
    const Vec<T> theta = load(a.theta + i);
    const Vec<T> grad = load<T>(a.grad + i);
    Vec<T> reference{}, v{};
    if constexpr (kTracked) reference = load(a.reference + i);
    if constexpr (M != Momentum::none) v = load<T>(a.momentum + i);
    const Vec<T> next = advance<T, P, M>(theta, Vec<T>(theta - reference), grad, v, s, rate, inverse);
    store(a.theta + i, next);
    if constexpr (M != Momentum::none) store(a.momentum + i, v);
    if constexpr (kTracked) sums.add(theta, next, reference);
  }
  for (int lane = 0; i < a.n; ++i, ++lane) {
    const T theta = a.theta[i];
    T reference = 0, v = 0;
    if constexpr (kTracked) reference = a.reference[i];
    if constexpr (M != Momentum::none) v = a.momentum[i];
    const T next = advance<T, P, M>(theta, T(theta - reference), a.grad[i], v, s, rate, inverse);
    a.theta[i] = next;
    if constexpr (M != Momentum::none) a.momentum[i] = v;
    if constexpr (kTracked) sums.add_one(lane, theta, next, reference);
  }
  return sums.sums();
}

template <class T, Momentum M>
Sums mend_chunk(const Span<T>& a, const Scalars<T>& s, T rate, T stale, T right) {
  WideSums sums;
  int64_t i = 0;
  for (; i + kLanes <= a.n; i += kLanes) {
    const Vec<T> theta = load(a.theta + i), reference = load(a.reference + i);
    const Vec<T> grad = load<T>(a.grad + i);
    Vec<T> v{};
    if constexpr (M != Momentum::none) v = load<T>(a.momentum + i);
    const Vec<T> next = mend<T, M>(theta, reference, grad, v, s, rate, stale, right);
    store(a.theta + i, next);
    if constexpr (M != Momentum::none) store(a.momentum + i, v);
    sums.add(theta, next, reference);
  }
  for (int lane = 0; i < a.n; ++i, ++lane) {
    const T theta = a.theta[i], reference = a.reference[i];
    T v = 0;
    if constexpr (M != Momentum::none) v = a.momentum[i];
    const T next = mend<T, M>(theta, reference, a.grad[i], v, s, rate, stale, right);
    a.theta[i] = next;
    if constexpr (M != Momentum::none) a.momentum[i] = v;
    sums.add_one(lane, theta, next, reference);
  }
  return sums.sums();
}

template <class T, Momentum M>
Sums update_as(const Span<T>& a, Tracking tracking, const Scalars<T>& s, T rate, T inverse) {
  switch (tracking) {
    case Tracking::measured: return update<T, true, Push::none, M>(a, s, rate, inverse);
    case Tracking::pushed_p1: return update<T, true, Push::p1, M>(a, s, rate, inverse);
    case Tracking::pushed_p2: return update<T, true, Push::p2, M>(a, s, rate, inverse);
    default: return update<T, false, Push::none, M>(a, s, rate, inverse);
  }
}

template <class T>
Sums any_update(const Span<T>& a, Tracking tracking, Momentum momentum, const Scalars<T>& s, T rate,
                T inverse) {
  switch (momentum) {
    case Momentum::heavy_ball: return update_as<T, Momentum::heavy_ball>(a, tracking, s, rate, inverse);
    case Momentum::nesterov: return update_as<T, Momentum::nesterov>(a, tracking, s, rate, inverse);
    default: return update_as<T, Momentum::none>(a, tracking, s, rate, inverse);
  }
}

template <class T>
Sums any_mend(const Span<T>& a, Momentum momentum, const Scalars<T>& s, T rate, T stale, T right) {
  switch (momentum) {
    case Momentum::heavy_ball: return mend_chunk<T, Momentum::heavy_ball>(a, s, rate, stale, right);
    case Momentum::nesterov: return mend_chunk<T, Momentum::nesterov>(a, s, rate, stale, right);
    default: return mend_chunk<T, Momentum::none>(a, s, rate, stale, right);
  }
}

// Same lanes and order as WideSums::after: without a projection it gives the carried norm's bits.
template <class T>
double squared_distance(const Span<T>& a) {
  Wide sum = {};
  int64_t i = 0;
  for (; i + kLanes <= a.n; i += kLanes) {
    const Wide delta = widen(load<T>(a.theta + i)) - widen(load(a.reference + i));
    sum += delta * delta;
  }
  for (int lane = 0; i < a.n; ++i, ++lane) {
    const double delta = static_cast<double>(a.theta[i]) - static_cast<double>(a.reference[i]);
    sum[lane] += delta * delta;
  }
  return total(sum);
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
