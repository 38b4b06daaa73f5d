// SPDX-License-Identifier: Apache-2.0
//
// Compiled once per SIMD level; D3_SIMD_LEVEL names it. Everything here has internal linkage but
// the table at the end, so that no function built for one level can be linked into another.
#include "cpu/sweeps.h"

#if defined(__F16C__)
#include <immintrin.h>
#endif

// Behind a lambda's parameter list; a lambda left as a call would lose its vectors to the stack.
#define D3_INLINE __attribute__((always_inline))

namespace d3 {
namespace {

// Elements per vector, the same at every SIMD level: so are the sums' bits.
constexpr int kLanes = 8;
// Sums run over this many vectors in T before they are added up in double.
constexpr int kRun = 64;

// GCC/Clang vectors: of what is computed with, of what is stored, and of the latter anywhere in
// memory. Members of structs: as arguments of a template the last would lose their alignment.
typedef uint32_t Words32 __attribute__((vector_size(4 * kLanes)));
template <class S>
struct Lanes {  // half types
  typedef float V __attribute__((vector_size(4 * kLanes)));
  typedef uint16_t Packed __attribute__((vector_size(2 * kLanes)));
  typedef uint16_t Unaligned __attribute__((vector_size(2 * kLanes), aligned(2), may_alias));
};
template <>
struct Lanes<float> {
  typedef float V __attribute__((vector_size(4 * kLanes)));
  typedef V Packed;
  typedef float Unaligned __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
};
template <>
struct Lanes<double> {
  typedef double V __attribute__((vector_size(8 * kLanes)));
  typedef V Packed;
  typedef double Unaligned __attribute__((vector_size(8 * kLanes), aligned(8), may_alias));
};
template <class S>
using Vec = typename Lanes<S>::V;
template <class S>
using Packed = typename Lanes<S>::Packed;
using Floats = Vec<float>;
using Halves = Packed<Bf16>;

}  // namespace

template <>
struct Words<Floats> {
  using Type = Words32;
};

namespace {

template <class S>
D3_HD Vec<S> unpack(const Packed<S>& x) {
  if constexpr (!Stored<S>::kHalf) {
    return x;
  } else {
#if defined(__F16C__)
    if constexpr (std::is_same_v<S, F16>) {
      return same_bits<Floats>(_mm256_cvtph_ps(same_bits<__m128i>(x)));
    }
#endif
    return decode<S, Floats>(__builtin_convertvector(x, Words32));
  }
}
template <class S>
D3_HD Packed<S> pack(const Vec<S>& x) {
  if constexpr (!Stored<S>::kHalf) {
    return x;
  } else {
#if defined(__F16C__)
    if constexpr (std::is_same_v<S, F16>) {
      constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
      return same_bits<Halves>(_mm256_cvtps_ph(same_bits<__m256>(x), kNearest));
    }
#endif
    return __builtin_convertvector(encode<S>(x), Halves);
  }
}

// Fewer than kLanes elements at the end of an array are padded with zeros, which add nothing.
template <class S>
D3_HD Vec<S> load(const S* p, int count) {
  Packed<S> x{};
  if (count == kLanes) {
    x = *reinterpret_cast<const typename Lanes<S>::Unaligned*>(p);
  } else {
    memcpy(&x, p, count * sizeof(S));
  }
  return unpack<S>(x);
}
template <class S>
D3_HD void store_packed(S* p, const Packed<S>& x, int count) {
  if (count == kLanes) {
    *reinterpret_cast<typename Lanes<S>::Unaligned*>(p) = x;
  } else {
    memcpy(p, &x, count * sizeof(S));
  }
}
template <class S>
D3_HD void store(S* p, const Vec<S>& x, int count) {
  store_packed(p, pack<S>(x), count);
}

// The weights of a chunk: with their remainders where these are kept.
template <class K, bool kTracked>
struct Weights {
  using W = typename K::Weight;
  static constexpr bool kCompensated = kTracked && Stored<W>::kHalf;
  W* __restrict__ theta;
  W* __restrict__ compensation;

  D3_HD Vec<W> load(int64_t i, int count) const {
    const Vec<W> known = d3::load(theta + i, count);
    if constexpr (kCompensated) {
      return whole_weight<W>(known, d3::load(compensation + i, count));
    } else {
      return known;
    }
  }
  D3_HD void store(int64_t i, const Vec<W>& x, int count) const {
    const Packed<W> rounded = pack<W>(x);
    store_packed(theta + i, rounded, count);
    if constexpr (kCompensated) {
      d3::store(compensation + i, x - unpack<W>(rounded), count);
    }
  }
};

// Asks for the line kAhead bytes on: the CPU's own prefetchers lag behind this many streams. The
// line may lie past the array, where prefetching is harmless but pointer arithmetic is not.
constexpr std::uintptr_t kLine = 64, kAhead = 2048;
template <bool kWrite, class S>
D3_HD void prefetch(const S* p, int64_t i) {
  if (i * sizeof(S) % kLine != 0) return;
  const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(p + i) + kAhead;
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

template <class K, bool kTracked, Push P, Momentum M>
Sums update(const Span<K>& a, const Scalars<typename K::T>& given, typename K::T rate,
            typename K::T inverse) {
  using T = typename K::T;
  const Scalars<T> s = given;  // a copy: stores to theta cannot alias it
  const Weights<K, kTracked> weights = {a.theta, a.compensation};
  const typename K::Reference* __restrict__ const reference = a.reference;
  const typename K::Weight* __restrict__ const grad = a.grad;
  typename K::Momentum* __restrict__ const momentum = a.momentum;
  return accumulate<T>(a.n, [=](int64_t i, int count, RunSums<T>& sums) D3_INLINE {
    prefetch<true>(weights.theta, i);
    if constexpr (Weights<K, kTracked>::kCompensated) prefetch<true>(weights.compensation, i);
    prefetch<false>(grad, i);
    if constexpr (kTracked) prefetch<false>(reference, i);
    if constexpr (M != Momentum::none) prefetch<true>(momentum, i);
    const Vec<T> was = weights.load(i, count);
    Vec<T> theta_0{}, v{};
    if constexpr (kTracked) theta_0 = load(reference + i, count);
    if constexpr (M != Momentum::none) v = load(momentum + i, count);
    const Vec<T> delta = was - theta_0;
    const Vec<T> next = advance<T, P, M>(was, delta, load(grad + i, count), v, s, rate, inverse);
    weights.store(i, next, count);
    if constexpr (M != Momentum::none) store(momentum + i, v, count);
    if constexpr (kTracked) sums.add(delta, next - theta_0, next);
  });
}

template <class K, Momentum M>
Sums mend_chunk(const Span<K>& a, const Scalars<typename K::T>& s, typename K::T rate,
                typename K::T stale, typename K::T right) {
  using T = typename K::T;
  const Weights<K, true> weights = {a.theta, a.compensation};
  return accumulate<T>(a.n, [=](int64_t i, int count, RunSums<T>& sums) D3_INLINE {
    const Vec<T> was = weights.load(i, count), theta_0 = load(a.reference + i, count);
    Vec<T> v{};
    if constexpr (M != Momentum::none) v = load(a.momentum + i, count);
    const Vec<T> grad = load(a.grad + i, count);
    const Vec<T> next = mend<T, M>(was, theta_0, grad, v, s, rate, stale, right);
    weights.store(i, next, count);
    if constexpr (M != Momentum::none) store(a.momentum + i, v, count);
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
  using T = typename K::T;
  const Weights<K, true> weights = {a.theta, a.compensation};
  return accumulate<T>(a.n,
                       [=](int64_t i, int count, RunSums<T>& sums) D3_INLINE {
                         const Vec<T> delta = weights.load(i, count) - load(a.reference + i, count);
                         sums.after += delta * delta;
                       })
      .after;
}

// Calls body(i, count) for every kLanes elements of n; count is less in the last call only.
template <class Body>
D3_HD void sweep(int64_t n, const Body& body) {
  const int64_t whole = n - n % kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) body(i, kLanes);
  if (whole < n) body(whole, static_cast<int>(n - whole));
}

template <class K>
void rescale(const Span<K>& a, Center center, typename K::T c) {
  using V = Vec<typename K::T>;
  const Weights<K, true> weights = {a.theta, a.compensation};
  const typename K::Reference* __restrict__ const reference = a.reference;
  if (center == Center::origin) {
    sweep(a.n, [=](int64_t i, int count)
                   D3_INLINE { weights.store(i, weights.load(i, count) * c, count); });
  } else {
    sweep(a.n, [=](int64_t i, int count) D3_INLINE {
      const V theta_0 = load(reference + i, count);
      weights.store(i, theta_0 + c * (weights.load(i, count) - theta_0), count);
    });
  }
}

template <class K>
void unscale(const Span<K>& a, typename K::T scale) {
  typename K::Weight* const grad = a.grad;
  sweep(a.n, [=](int64_t i, int count)
                 D3_INLINE { store(grad + i, load(grad + i, count) / scale, count); });
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
