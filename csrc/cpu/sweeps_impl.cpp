// SPDX-License-Identifier: Apache-2.0
//
// Compiled once per SIMD level; D3_SIMD_LEVEL names it. Everything here has internal linkage but
// the table at the end, so that no function built for one level can be linked into another.
#include <utility>

#include "cpu/lanes.h"
#include "cpu/sweeps.h"

// Behind a lambda's parameter list; a lambda left as a call would lose its vectors to the stack.
#define D3_INLINE __attribute__((always_inline))

namespace d3 {
namespace {

// Sums run over this many vectors in T before they are added up in double.
constexpr int kRun = 64;

// What a storage is computed with.
template <class K>
using VecOf = Vec<typename K::T, kWidth<K>>;

// Asks for the line kAhead bytes on: the CPU's own prefetchers lag behind this many streams. The
// line may lie past the array, where prefetching is harmless but pointer arithmetic is not.
constexpr std::uintptr_t kLine = 64, kAhead = 2048;
template <bool kWrite, class S>
D3_HD void prefetch(const S* p, int64_t i) {
  if (i * sizeof(S) % kLine != 0) return;
  const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(p + i) + kAhead;
  __builtin_prefetch(reinterpret_cast<const void*>(address), kWrite);
}

// The sums of one run, lane by lane; a vector may hold only a part of the lanes.
template <class V>
struct RunSums {
  V before{}, after{}, weight{}, inner{};

  D3_HD void add(V delta_before, V delta, V theta) {
    before += delta_before * delta_before;
    after += delta * delta;
    weight += theta * theta;
    inner += delta * theta;
  }
  D3_HD void add_to(Sums& sums) const {
    for (size_t i = 0; i < sizeof(V) / sizeof(before[0]); ++i) {
      sums.before += before[i];
      sums.after += after[i];
      sums.weight += weight[i];
      sums.inner += inner[i];
    }
  }
};

// Calls body(i, count, sums) for every vector of n elements; count is less at the end only. Part:
// of the vectors that make up the lanes.
template <class K, int... Part, class Body>
D3_HD Sums accumulate(int64_t n, const Body& body, std::integer_sequence<int, Part...>) {
  constexpr int N = kWidth<K>, kAll = kLanes<K>;
  Sums sums;
  const int64_t whole = n - n % kAll;
  for (int64_t i = 0; i < whole;) {
    const int64_t end = whole - i < kRun * kAll ? whole : i + kRun * kAll;
    RunSums<VecOf<K>> run[sizeof...(Part)];
    for (; i < end; i += kAll) (body(i + Part * N, N, run[Part]), ...);
    Sums of_run;
    (run[Part].add_to(of_run), ...);
    sums.add(of_run);
  }
  Sums of_rest;
  for (int64_t i = whole; i < n; i += N) {
    RunSums<VecOf<K>> run;
    body(i, n - i < N ? static_cast<int>(n - i) : N, run);
    run.add_to(of_rest);
  }
  sums.add(of_rest);
  return sums;
}
template <class K, class Body>
D3_HD Sums accumulate(int64_t n, const Body& body) {
  return accumulate<K>(n, body, std::make_integer_sequence<int, kLanes<K> / kWidth<K>>());
}

// The same for a sweep without sums: body(i, count).
template <class K, class Body>
D3_HD void sweep(int64_t n, const Body& body) {
  constexpr int N = kWidth<K>;
  const int64_t whole = n - n % N;
  for (int64_t i = 0; i < whole; i += N) body(i, N);
  if (whole < n) body(whole, static_cast<int>(n - whole));
}

template <class K, bool kTracked, Push P, Momentum M>
Sums update(const Span<K>& a, const Scalars<typename K::T>& given, typename K::T rate,
            typename K::T inverse) {
  using T = typename K::T;
  using V = VecOf<K>;
  constexpr int N = kWidth<K>;
  const Scalars<T> s = given;  // a copy: stores to theta cannot alias it
  const Weights<K, kTracked> weights = {a.theta, a.compensation};
  const typename K::Reference* __restrict__ const reference = a.reference;
  const typename K::Weight* __restrict__ const grad = a.grad;
  typename K::Momentum* __restrict__ const momentum = a.momentum;
  return accumulate<K>(a.n, [=](int64_t i, int count, RunSums<V>& sums) D3_INLINE {
    prefetch<true>(weights.theta, i);
    if constexpr (Weights<K, kTracked>::kCompensated) prefetch<true>(weights.compensation, i);
    prefetch<false>(grad, i);
    if constexpr (kTracked) prefetch<false>(reference, i);
    if constexpr (M != Momentum::none) prefetch<true>(momentum, i);
    const V was = weights.load(i, count);
    V theta_0{}, v{};
    if constexpr (kTracked) theta_0 = load<N>(reference + i, count);
    if constexpr (M != Momentum::none) v = load<N>(momentum + i, count);
    const V delta = was - theta_0;
    const V next = advance<T, P, M>(was, delta, load<N>(grad + i, count), v, s, rate, inverse);
    weights.store(i, next, count);
    if constexpr (M != Momentum::none) store<N>(momentum + i, v, count);
    if constexpr (kTracked) sums.add(delta, next - theta_0, next);
  });
}

template <class K, Momentum M>
Sums mend_chunk(const Span<K>& a, const Scalars<typename K::T>& s, typename K::T rate,
                typename K::T stale, typename K::T right) {
  using T = typename K::T;
  using V = VecOf<K>;
  constexpr int N = kWidth<K>;
  const Weights<K, true> weights = {a.theta, a.compensation};
  return accumulate<K>(a.n, [=](int64_t i, int count, RunSums<V>& sums) D3_INLINE {
    const V was = weights.load(i, count), theta_0 = load<N>(a.reference + i, count);
    V v{};
    if constexpr (M != Momentum::none) v = load<N>(a.momentum + i, count);
    const V grad = load<N>(a.grad + i, count);
    const V next = mend<T, M>(was, theta_0, grad, v, s, rate, stale, right);
    weights.store(i, next, count);
    if constexpr (M != Momentum::none) store<N>(a.momentum + i, v, count);
    sums.add(was - theta_0, next - theta_0, next);
  });
}

template <class K, Momentum M>
Sums update_as(const Span<K>& a, Tracking tracking, const Scalars<typename K::T>& s,
               typename K::T rate, typename K::T inverse) {
  switch (tracking) {
    case Tracking::measured:
      return update<K, true, Push::none, M>(a, s, rate, inverse);
    case Tracking::pushed_p1:
      return update<K, true, Push::p1, M>(a, s, rate, inverse);
    case Tracking::pushed_p2:
      return update<K, true, Push::p2, M>(a, s, rate, inverse);
    default:
      return update<K, false, Push::none, M>(a, s, rate, inverse);
  }
}

template <class K>
Sums any_update(const Span<K>& a, Tracking tracking, Momentum momentum,
                const Scalars<typename K::T>& s, typename K::T rate, typename K::T inverse) {
  switch (momentum) {
    case Momentum::heavy_ball:
      return update_as<K, Momentum::heavy_ball>(a, tracking, s, rate, inverse);
    case Momentum::nesterov:
      return update_as<K, Momentum::nesterov>(a, tracking, s, rate, inverse);
    default:
      return update_as<K, Momentum::none>(a, tracking, s, rate, inverse);
  }
}

template <class K>
Sums any_mend(const Span<K>& a, Momentum momentum, const Scalars<typename K::T>& s,
              typename K::T rate, typename K::T stale, typename K::T right) {
  switch (momentum) {
    case Momentum::heavy_ball:
      return mend_chunk<K, Momentum::heavy_ball>(a, s, rate, stale, right);
    case Momentum::nesterov:
      return mend_chunk<K, Momentum::nesterov>(a, s, rate, stale, right);
    default:
      return mend_chunk<K, Momentum::none>(a, s, rate, stale, right);
  }
}

// Same lanes and order as in `update`: without a projection it gives the carried norm's bits, but
// for what rounding took off weights of a half type.
template <class K>
double squared_distance(const Span<K>& a) {
  using V = VecOf<K>;
  constexpr int N = kWidth<K>;
  const Weights<K, true> weights = {a.theta, a.compensation};
  return accumulate<K>(a.n,
                       [=](int64_t i, int count, RunSums<V>& sums) D3_INLINE {
                         const V delta = weights.load(i, count) - load<N>(a.reference + i, count);
                         sums.after += delta * delta;
                       })
      .after;
}

template <class K>
void rescale(const Span<K>& a, Center center, typename K::T c) {
  using V = VecOf<K>;
  constexpr int N = kWidth<K>;
  const Weights<K, true> weights = {a.theta, a.compensation};
  const typename K::Reference* __restrict__ const reference = a.reference;
  if (center == Center::origin) {
    sweep<K>(a.n, [=](int64_t i, int count)
                      D3_INLINE { weights.store(i, weights.load(i, count) * c, count); });
  } else {
    sweep<K>(a.n, [=](int64_t i, int count) D3_INLINE {
      const V theta_0 = load<N>(reference + i, count);
      weights.store(i, theta_0 + c * (weights.load(i, count) - theta_0), count);
    });
  }
}

template <class K>
void unscale(const Span<K>& a, typename K::T scale) {
  constexpr int N = kWidth<K>;
  typename K::Weight* const grad = a.grad;
  sweep<K>(a.n, [=](int64_t i, int count)
                    D3_INLINE { store<N>(grad + i, load<N>(grad + i, count) / scale, count); });
}

template <class K>
constexpr Sweeps<K> kTable = {any_update<K>, any_mend<K>, squared_distance<K>, rescale<K>,
                              unscale<K>};
template <class... K>
constexpr AllSweeps every(Storages<K...>) {
  return {kTable<K>...};
}
constexpr AllSweeps kAll = every(CpuStorages());

}  // namespace

#define D3_CONCAT_(a, b) a##b
#define D3_CONCAT(a, b) D3_CONCAT_(a, b)
const AllSweeps& D3_CONCAT(sweeps_, D3_SIMD_LEVEL)() { return kAll; }

}  // namespace d3
