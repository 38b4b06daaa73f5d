// SPDX-License-Identifier: Apache-2.0
//
// Compiled once per SIMD level; D3_SIMD_LEVEL names it. Everything here has internal linkage but
// the table at the end, so that no function built for one level is linked into another.
#include "cpu/kernels.h"

#include <utility>

#include "common/static_switch.h"
#include "cpu/simd.h"

// After a lambda's parameter list. A lambda that is called instead of inlined spills its vectors.
#define D3_INLINE __attribute__((always_inline))

namespace d3 {
namespace {

// Sums run over this many vectors in Real before they are added in double.
constexpr int kRun = 64;

template <class DTypes>
using VecOf = Vec<typename DTypes::Real, kWidth<DTypes>>;

// Prefetches the line kAhead bytes on: the CPU's own prefetchers lag behind this many streams. The
// line may be past the array, where prefetching is harmless but pointer arithmetic is not.
constexpr std::uintptr_t kLine = 64, kAhead = 2048;
template <bool kWrite, class Stored>
D3_HD void prefetch(const Stored* p, int64_t i) {
  if (i * sizeof(Stored) % kLine != 0) return;
  const std::uintptr_t address = reinterpret_cast<std::uintptr_t>(p + i) + kAhead;
  __builtin_prefetch(reinterpret_cast<const void*>(address), kWrite);
}

// The sums of one run, lane by lane; a vector may hold only a part of the lanes.
template <class Vector>
struct RunSums {
  Vector before{}, after{}, weight{}, inner{};

  D3_HD void add(Vector delta_before, Vector delta, Vector theta) {
    before += delta_before * delta_before;
    after += delta * delta;
    weight += theta * theta;
    inner += delta * theta;
  }
  D3_HD void add_to(Sums& sums) const {
    for (size_t i = 0; i < sizeof(Vector) / sizeof(before[0]); ++i) {
      sums.before += before[i];
      sums.after += after[i];
      sums.weight += weight[i];
      sums.inner += inner[i];
    }
  }
};

// Calls body(i, count, sums) for every vector of n elements; only at the end is count less than a
// vector. Part numbers the vectors that make up the lanes.
template <class DTypes, int... Part, class Body>
D3_HD Sums accumulate(int64_t n, const Body& body, std::integer_sequence<int, Part...>) {
  constexpr int N = kWidth<DTypes>, kAll = kLanes<DTypes>;
  Sums sums;
  const int64_t whole = n - n % kAll;
  for (int64_t i = 0; i < whole;) {
    const int64_t end = whole - i < kRun * kAll ? whole : i + kRun * kAll;
    RunSums<VecOf<DTypes>> run[sizeof...(Part)];
    for (; i < end; i += kAll) (body(i + Part * N, N, run[Part]), ...);
    Sums of_run;
    (run[Part].add_to(of_run), ...);
    sums.add(of_run);
  }
  Sums of_rest;
  for (int64_t i = whole; i < n; i += N) {
    RunSums<VecOf<DTypes>> run;
    body(i, n - i < N ? static_cast<int>(n - i) : N, run);
    run.add_to(of_rest);
  }
  sums.add(of_rest);
  return sums;
}
template <class DTypes, class Body>
D3_HD Sums accumulate(int64_t n, const Body& body) {
  return accumulate<DTypes>(n, body,
                            std::make_integer_sequence<int, kLanes<DTypes> / kWidth<DTypes>>());
}

// The same for a loop without sums: body(i, count).
template <class DTypes, class Body>
D3_HD void for_each_vector(int64_t n, const Body& body) {
  constexpr int N = kWidth<DTypes>;
  const int64_t whole = n - n % N;
  for (int64_t i = 0; i < whole; i += N) body(i, N);
  if (whole < n) body(whole, static_cast<int>(n - whole));
}

// The buffers of a rule, loaded and stored as far as it has them.
template <class DTypes, UpdateRule kRule>
struct BufferArrays {
  using Vector = VecOf<DTypes>;
  static constexpr int N = kWidth<DTypes>;
  typename DTypes::MomentumBuffer* __restrict__ momentum;
  typename DTypes::Real* __restrict__ variance;

  D3_HD void prefetch(int64_t i) const {
    if constexpr (has_momentum(kRule)) d3::prefetch<true>(momentum, i);
    if constexpr (has_variance(kRule)) d3::prefetch<true>(variance, i);
  }
  D3_HD Buffers<Vector> load(int64_t i, int count) const {
    Buffers<Vector> buffers;
    if constexpr (has_momentum(kRule)) buffers.momentum = d3::load<N>(momentum + i, count);
    if constexpr (has_variance(kRule)) buffers.variance = d3::load<N>(variance + i, count);
    return buffers;
  }
  D3_HD void store(int64_t i, const Buffers<Vector>& buffers, int count) const {
    if constexpr (has_momentum(kRule)) d3::store<N>(momentum + i, buffers.momentum, count);
    if constexpr (has_variance(kRule)) d3::store<N>(variance + i, buffers.variance, count);
  }
};

template <class DTypes, Tracking kTracking, UpdateRule kRule, bool kPlain>
Sums update(const ChunkArrays<DTypes>& a, const Scalars<typename DTypes::Real>& given,
            const Rates<typename DTypes::Real>& given_rates, typename DTypes::Real inverse) {
  using Real = typename DTypes::Real;
  using Vector = VecOf<DTypes>;
  constexpr int N = kWidth<DTypes>;
  constexpr bool kTracked = kTracking != Tracking::none;
  constexpr Push kPush = push_of(kTracking);
  const Scalars<Real> s = given;  // copies: stores to theta cannot alias them
  const Rates<Real> rates = given_rates;
  const Weights<DTypes, kTracked> weights = {a.theta, a.compensation};
  const typename DTypes::Reference* __restrict__ const reference = a.reference;
  const typename DTypes::Weight* __restrict__ const grad = a.grad;
  const BufferArrays<DTypes, kRule> buffers = {a.momentum, a.variance};
  return accumulate<DTypes>(a.n, [=](int64_t i, int count, RunSums<Vector>& sums) D3_INLINE {
    prefetch<true>(weights.theta, i);
    if constexpr (weights.kCompensated) prefetch<true>(weights.compensation, i);
    prefetch<false>(grad, i);
    if constexpr (kTracked) prefetch<false>(reference, i);
    buffers.prefetch(i);
    const Vector before = weights.load(i, count);
    Vector theta_0{};
    if constexpr (kTracked) theta_0 = load<N>(reference + i, count);
    Buffers<Vector> b = buffers.load(i, count);
    const Vector delta = before - theta_0;
    const Vector next = update_by_rule<Real, kPush, kRule, kPlain>(
        before, delta, load<N>(grad + i, count), b, s, rates, inverse);
    weights.store(i, next, count);
    buffers.store(i, b, count);
    if constexpr (kTracked) sums.add(delta, next - theta_0, next);
  });
}

template <class DTypes, UpdateRule kRule>
Sums correct_chunk(const ChunkArrays<DTypes>& a, const Scalars<typename DTypes::Real>& s,
                   const Rates<typename DTypes::Real>& rates, typename DTypes::Real stale,
                   typename DTypes::Real right) {
  using Real = typename DTypes::Real;
  using Vector = VecOf<DTypes>;
  constexpr int N = kWidth<DTypes>;
  const Weights<DTypes, true> weights = {a.theta, a.compensation};
  const BufferArrays<DTypes, kRule> buffers = {a.momentum, a.variance};
  return accumulate<DTypes>(a.n, [=](int64_t i, int count, RunSums<Vector>& sums) D3_INLINE {
    const Vector before = weights.load(i, count), theta_0 = load<N>(a.reference + i, count);
    Buffers<Vector> b = buffers.load(i, count);
    const Vector grad = load<N>(a.grad + i, count);
    const Vector next =
        correct_by_rule<Real, kRule>(before, theta_0, grad, b, s, rates, stale, right);
    weights.store(i, next, count);
    buffers.store(i, b, count);
    sums.add(before - theta_0, next - theta_0, next);
  });
}

// The order of the tests below puts the common case first.
constexpr auto among_rules(UpdateRule rule) {
  return among<UpdateRule::heavy_ball, UpdateRule::adamw, UpdateRule::nesterov, UpdateRule::sgd>(
      rule);
}

template <class DTypes>
Sums any_update(const ChunkArrays<DTypes>& a, Tracking tracking, UpdateRule rule,
                const Scalars<typename DTypes::Real>& s, const Rates<typename DTypes::Real>& rates,
                typename DTypes::Real inverse) {
  return static_switch(
      [&](auto tracked_as, auto rule_as, auto plain) {
        constexpr bool kPlain = plain() && rule_as() == UpdateRule::heavy_ball;
        return update<DTypes, tracked_as(), rule_as(), kPlain>(a, s, rates, inverse);
      },
      among<Tracking::pushed_p2, Tracking::measured, Tracking::pushed_p1, Tracking::none>(tracking),
      among_rules(rule), among<true, false>(is_plain_descent(s, rates.rate)));
}

template <class DTypes>
Sums any_correction(const ChunkArrays<DTypes>& a, UpdateRule rule,
                    const Scalars<typename DTypes::Real>& s,
                    const Rates<typename DTypes::Real>& rates, typename DTypes::Real stale,
                    typename DTypes::Real right) {
  return static_switch(
      [&](auto rule_as) { return correct_chunk<DTypes, rule_as()>(a, s, rates, stale, right); },
      among_rules(rule));
}

// Same lanes and order as in `update`: without a projection it gives the bits of the cached norm,
// except for what rounding took off weights of a half type.
template <class DTypes>
double squared_distance(const ChunkArrays<DTypes>& a) {
  using Vector = VecOf<DTypes>;
  constexpr int N = kWidth<DTypes>;
  const Weights<DTypes, true> weights = {a.theta, a.compensation};
  const auto body = [=](int64_t i, int count, RunSums<Vector>& sums) D3_INLINE {
    const Vector delta = weights.load(i, count) - load<N>(a.reference + i, count);
    sums.after += delta * delta;
  };
  return accumulate<DTypes>(a.n, body).after;
}

template <class DTypes>
void rescale(const ChunkArrays<DTypes>& a, Center center, typename DTypes::Real c) {
  using Vector = VecOf<DTypes>;
  constexpr int N = kWidth<DTypes>;
  const Weights<DTypes, true> weights = {a.theta, a.compensation};
  const typename DTypes::Reference* __restrict__ const reference = a.reference;
  if (center == Center::origin) {
    for_each_vector<DTypes>(a.n, [=](int64_t i, int count) D3_INLINE {
      weights.store(i, weights.load(i, count) * c, count);
    });
  } else {
    for_each_vector<DTypes>(a.n, [=](int64_t i, int count) D3_INLINE {
      const Vector theta_0 = load<N>(reference + i, count);
      weights.store(i, theta_0 + c * (weights.load(i, count) - theta_0), count);
    });
  }
}

template <class DTypes>
void unscale(const ChunkArrays<DTypes>& a, typename DTypes::Real scale) {
  constexpr int N = kWidth<DTypes>;
  typename DTypes::Weight* const grad = a.grad;
  for_each_vector<DTypes>(a.n, [=](int64_t i, int count) D3_INLINE {
    store<N>(grad + i, load<N>(grad + i, count) / scale, count);
  });
}

template <class DTypes>
constexpr Kernels<DTypes> kTable = {any_update<DTypes>, any_correction<DTypes>,
                                    squared_distance<DTypes>, rescale<DTypes>, unscale<DTypes>};
template <class... Triples>
constexpr AllKernels every(DTypeTriples<Triples...>) {
  return {kTable<Triples>...};
}
constexpr AllKernels kAll = every(CpuDTypes());

}  // namespace

#define D3_CONCAT_(a, b) a##b
#define D3_CONCAT(a, b) D3_CONCAT_(a, b)
const AllKernels& D3_CONCAT(kernels_, D3_SIMD_LEVEL)() { return kAll; }

}  // namespace d3
