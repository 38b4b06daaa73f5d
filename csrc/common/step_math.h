// SPDX-License-Identifier: Apache-2.0
//
// The mathematics of one D3 step, element by element and norm by norm. Both backends include this
// file; they differ only in how the work is partitioned and summed. Notation (arXiv 2411.09585):
//
//   delta = theta - theta_0,  D = ||delta||_p,  u = w * dD/dtheta
//
//   SGD:    d = g + weight_decay * theta - u
//           v <- momentum * v + rate * d            rate = 1 on the first step, else 1 - dampening
//           theta <- Pi(theta - lr * (nesterov ? d + momentum * v : v))
//
//   AdamW:  d = g - u                                              (decoupled push: d = g)
//           m <- beta_1 m + (1 - beta_1) d,  s <- beta_2 s + (1 - beta_2) d^2
//           theta <- Pi((1 - lr * weight_decay) theta - lr * m^ / (sqrt(s^) + eps))   (+ lr * u)
//           m^ = m / (1 - beta_1^t),  s^ = s / (1 - beta_2^t),  arXiv 1711.05101
//
// Real is the arithmetic type, float or double. Vector is one element of that type or, on the CPU,
// a GCC/Clang vector of several; expressions are written so that both read the same.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#if defined(__CUDACC__)
#define D3_HD __host__ __device__ __forceinline__
#else
#define D3_HD inline __attribute__((always_inline))
#endif

namespace d3 {

// The gradient of the distance that is added: none, sign(delta) (p = 1) or delta / D (p = 2).
enum class Push : int { none = 0, p1 = 1, p2 = 2 };

// The rule by which weights and buffers move: SGD with its kinds of momentum, and AdamW.
enum class UpdateRule : int { sgd = 0, heavy_ball = 1, nesterov = 2, adamw = 3 };

// The point the projection rescales around: none, the origin (norm sets), theta_0 (distance sets).
enum class Center : int { none = 0, origin = 1, reference = 2 };

// How the update uses theta_0: not at all (plain SGD), to measure the distance, or to push as well.
enum class Tracking : int { none = 0, measured = 1, pushed_p1 = 2, pushed_p2 = 3 };

// The numbers of one step, the same for every element of a group.
template <class Real>
struct Scalars {
  Real lr;
  Real momentum;
  Real weight_decay;
  Real grad_sign;        // -1 where maximize, else 1
  Real distance_weight;  // w; 0 where the push is decoupled
  // Of AdamW only.
  Real beta1 = 0, beta2 = 0, eps = 0;
  Real rate1 = 0, rate2 = 0;  // 1 - beta, rounded once
  Real keep = 0;              // 1 - lr * weight_decay
  Real decoupled_push = 0;    // lr * w where the push is decoupled, else 0
};

// The numbers of one step of one tensor, which depend on how many steps its buffers hold.
template <class Real>
struct Rates {
  Real rate = 1;          // of d in v
  Real step_size = 0;     // lr / (1 - beta_1^t)
  Real inverse_root = 0;  // 1 / sqrt(1 - beta_2^t)
};

// The buffers of one element: v of SGD or m of AdamW, and s.
template <class Vector>
struct Buffers {
  Vector momentum{}, variance{};
};

constexpr bool has_momentum(UpdateRule rule) { return rule != UpdateRule::sgd; }
constexpr bool has_variance(UpdateRule rule) { return rule == UpdateRule::adamw; }

// step: the number of this step, from 1.
template <class Real>
D3_HD Rates<Real> adamw_rates(double lr, double beta1, double beta2, double step) {
  Rates<Real> rates;
  rates.step_size = static_cast<Real>(lr / (1 - pow(beta1, step)));
  rates.inverse_root = static_cast<Real>(1 / sqrt(1 - pow(beta2, step)));
  return rates;
}

D3_HD UpdateRule sgd_rule_of(double momentum, bool nesterov) {
  return momentum == 0 ? UpdateRule::sgd : nesterov ? UpdateRule::nesterov : UpdateRule::heavy_ball;
}

D3_HD Tracking tracking_of(bool tracked, double distance_weight, int p) {
  if (!tracked) return Tracking::none;
  if (distance_weight == 0) return Tracking::measured;
  return p == 1 ? Tracking::pushed_p1 : Tracking::pushed_p2;
}

D3_HD constexpr Push push_of(Tracking tracking) {
  return tracking == Tracking::pushed_p1   ? Push::p1
         : tracking == Tracking::pushed_p2 ? Push::p2
                                           : Push::none;
}

// `delta_before_update` divides by 1 - lr * weight_decay; where that nears 0 the norm is verified
// before the update instead of being corrected after it.
D3_HD bool needs_verification(UpdateRule rule, double lr, double weight_decay) {
  return rule != UpdateRule::heavy_ball && !(lr * weight_decay <= 0.5);
}

// What one pass over the elements accumulates, so that no other pass reads the same bytes again.
struct Sums {
  double before = 0;  // sum of delta^2 before the update: checks the cached norm
  double after = 0;   // sum of delta^2 after the update
  double weight = 0;  // sum of theta^2 after the update
  double inner = 0;   // sum of delta * theta after the update

  D3_HD void add(const Sums& o) {
    before += o.before;
    after += o.after;
    weight += o.weight;
    inner += o.inner;
  }
};

// 1/D, 0 where D = 0. Capped: a subnormal D must not turn 0 * inf into NaN.
template <class Real>
D3_HD Real inverse_distance(double distance) {
  const double cap = sizeof(Real) == 4 ? 1e37 : 1e300;
  if (!(distance > 0)) return Real(0);
  return static_cast<Real>(1 / distance < cap ? 1 / distance : cap);
}

// dD/dtheta. |delta_i| <= D holds for a true norm, so for p = 2 the clamp changes nothing; for a
// stale norm it keeps the update small enough to be undone exactly (see `correct_stale_norm`).
template <class Real, Push kPush, class Vector>
D3_HD Vector distance_gradient(Vector delta, Real inverse) {
  const Vector zero = Vector();
  const Vector one = zero + Real(1);
  if constexpr (kPush == Push::p1) {
    return delta > zero ? one : (delta < zero ? -one : delta * Real(0));
  } else {
    const Vector ratio = delta * inverse;
    return ratio > one ? one : (ratio < -one ? -one : ratio);
  }
}

template <class Vector>
D3_HD Vector square_root(Vector x) {
  if constexpr (std::is_arithmetic_v<Vector>) {
    return std::sqrt(x);
  } else {
    for (size_t i = 0; i < sizeof(x) / sizeof(x[0]); ++i) x[i] = std::sqrt(x[i]);
    return x;
  }
}

// True where SGD need not compute g + weight_decay * theta, nor multiply by rate.
template <class Real>
D3_HD bool is_plain_descent(const Scalars<Real>& s, Real rate) {
  return s.weight_decay == 0 && s.grad_sign == 1 && rate == 1;
}

// One element's update by SGD. Reads and writes v; returns the new theta, not yet projected.
// kPlain: see `is_plain_descent`.
template <class Real, Push kPush, UpdateRule kRule, bool kPlain = false, class Vector>
D3_HD Vector update_element(Vector theta, Vector delta, Vector grad, Vector& v,
                            const Scalars<Real>& s, Real rate, Real inverse) {
  Vector d = grad;
  if constexpr (!kPlain) d = grad * s.grad_sign + theta * s.weight_decay;
  if constexpr (kPush != Push::none)
    d = d - distance_gradient<Real, kPush>(delta, inverse) * s.distance_weight;
  if constexpr (kRule == UpdateRule::sgd) return theta - d * s.lr;
  v = v * s.momentum + (kPlain ? d : d * rate);
  if constexpr (kRule == UpdateRule::nesterov) return theta - (d + v * s.momentum) * s.lr;
  return theta - v * s.lr;
}

// lr * m^ / (sqrt(s^) + eps).
template <class Real, class Vector>
D3_HD Vector adamw_step(const Buffers<Vector>& b, const Scalars<Real>& s, const Rates<Real>& r) {
  return b.momentum * r.step_size / (square_root(b.variance) * r.inverse_root + s.eps);
}

// One element's update by AdamW; see `update_element`.
template <class Real, Push kPush, class Vector>
D3_HD Vector update_adamw(Vector theta, Vector delta, Vector grad, Buffers<Vector>& b,
                          const Scalars<Real>& s, const Rates<Real>& r, Real inverse) {
  Vector d = grad * s.grad_sign, moved = theta * s.keep;
  if constexpr (kPush != Push::none) {
    const Vector u = distance_gradient<Real, kPush>(delta, inverse);
    d = d - u * s.distance_weight;
    moved = moved + u * s.decoupled_push;
  }
  b.momentum = b.momentum * s.beta1 + d * s.rate1;
  b.variance = b.variance * s.beta2 + d * d * s.rate2;
  return moved - adamw_step(b, s, r);
}

// One element's update by any rule.
template <class Real, Push kPush, UpdateRule kRule, bool kPlain = false, class Vector>
D3_HD Vector update_by_rule(Vector theta, Vector delta, Vector grad, Buffers<Vector>& b,
                            const Scalars<Real>& s, const Rates<Real>& r, Real inverse) {
  if constexpr (kRule == UpdateRule::adamw) {
    return update_adamw<Real, kPush>(theta, delta, grad, b, s, r, inverse);
  } else {
    return update_element<Real, kPush, kRule, kPlain>(theta, delta, grad, b.momentum, s, r.rate,
                                                      inverse);
  }
}

// x where keep * x + push * clamp(x * inverse) = base.
template <class Real, class Vector>
D3_HD Vector undo_push(Vector base, Real keep, Real push, Real inverse) {
  const Vector zero = Vector();
  const Vector inside = base / (keep + push * inverse);
  const Vector sign = base > zero ? zero + Real(1) : zero - Real(1);
  const Vector outside = (base - sign * push) / keep;
  return (inside * inverse) * sign > zero + Real(1) ? outside : inside;
}

// delta as it was before `update_element` ran with Push::p2 and `inverse`. Without Nesterov the
// step is lr * v; otherwise the update is inverted, which is linear in delta on either side of the
// clamp. Needs lr * weight_decay < 1; `needs_verification` makes sure of it.
template <class Real, UpdateRule kRule, class Vector>
D3_HD Vector delta_before_update(Vector theta, Vector reference, Vector grad, Vector v,
                                 const Scalars<Real>& s, Real inverse) {
  if constexpr (kRule == UpdateRule::heavy_ball) return theta + v * s.lr - reference;
  const Real keep = Real(1) - s.lr * s.weight_decay;
  Vector step = grad * s.grad_sign;
  if constexpr (kRule == UpdateRule::nesterov) step = step + v * s.momentum;
  const Vector base = theta + step * s.lr - reference * keep;
  return undo_push(base, keep, s.lr * s.distance_weight, inverse);
}

// Replaces the push made with a stale norm by the right one; theta and v are what `update_element`
// left.
template <class Real, UpdateRule kRule, class Vector>
D3_HD Vector correct_stale_norm(Vector theta, Vector reference, Vector grad, Vector& v,
                                const Scalars<Real>& s, Real rate, Real stale, Real right) {
  const Vector delta = delta_before_update<Real, kRule>(theta, reference, grad, v, s, stale);
  const Vector change = (distance_gradient<Real, Push::p2>(delta, stale) -
                         distance_gradient<Real, Push::p2>(delta, right)) *
                        s.distance_weight;  // d_right - d_stale
  if constexpr (kRule == UpdateRule::sgd) return theta - change * s.lr;
  v = v + change * rate;
  if constexpr (kRule == UpdateRule::nesterov)
    return theta - (change + change * (rate * s.momentum)) * s.lr;
  return theta - change * (rate * s.lr);
}

// The same for AdamW. The second moment forgets the stale push to within the rounding of its
// square; it is never less than this step alone has made it.
template <class Real, class Vector>
D3_HD Vector correct_stale_adamw(Vector theta, Vector reference, Vector grad, Buffers<Vector>& b,
                                 const Scalars<Real>& s, const Rates<Real>& r, Real stale,
                                 Real right) {
  const Vector zero = Vector();
  const Vector stale_step = adamw_step(b, s, r);
  const Vector base = theta + stale_step - reference * s.keep;
  const Vector delta = undo_push(base, s.keep, s.decoupled_push, stale);
  const Vector stale_push = distance_gradient<Real, Push::p2>(delta, stale);
  const Vector push = distance_gradient<Real, Push::p2>(delta, right);
  const Vector g = grad * s.grad_sign;
  const Vector stale_d = g - stale_push * s.distance_weight, d = g - push * s.distance_weight;
  b.momentum = b.momentum + (d - stale_d) * s.rate1;
  const Vector before = b.variance - stale_d * stale_d * s.rate2;
  b.variance = (before > zero ? before : before * Real(0)) + d * d * s.rate2;
  return theta + stale_step - adamw_step(b, s, r) + (push - stale_push) * s.decoupled_push;
}

// Replaces a push made with a stale norm, by any rule.
template <class Real, UpdateRule kRule, class Vector>
D3_HD Vector correct_by_rule(Vector theta, Vector reference, Vector grad, Buffers<Vector>& b,
                             const Scalars<Real>& s, const Rates<Real>& r, Real stale, Real right) {
  if constexpr (kRule == UpdateRule::adamw) {
    return correct_stale_adamw(theta, reference, grad, b, s, r, stale, right);
  } else {
    return correct_stale_norm<Real, kRule>(theta, reference, grad, b.momentum, s, r.rate, stale,
                                           right);
  }
}

// True where a cached norm is off by more than the rounding of stored weights explains; never for
// weights that are infinite or NaN.
template <class Real>
D3_HD bool is_stale(double cached, double actual, double rounding) {
  const double off = cached > actual ? cached - actual : actual - cached;
  const double tolerance = sizeof(Real) == 4 ? 1e-5 : 1e-12;
  return actual * 0 == 0 && !(off <= tolerance * actual + rounding);
}

// The constraint set lower <= ||x|| <= upper, absolute.
struct Bounds {
  Center center = Center::none;
  double lower = 0;
  double upper = std::numeric_limits<double>::infinity();
};

// The factor that brings the updated weights into the set: 1 inside it and at norm 0. Rounded to
// Real, in which it will be applied, so that `distance_after` describes what is stored.
template <class Real>
D3_HD double projection_coefficient(const Bounds& bounds, const Sums& sums) {
  if (bounds.center == Center::none) return 1;
  const double norm = sqrt(bounds.center == Center::origin ? sums.weight : sums.after);
  if (!(norm > 0)) return 1;
  if (norm < bounds.lower) return static_cast<Real>(bounds.lower / norm);
  if (norm > bounds.upper) return static_cast<Real>(bounds.upper / norm);
  return 1;
}

// ||theta - theta_0|| after the projection, without another pass:
// ||c theta - theta_0||^2 = D^2 + 2 (c-1) <delta, theta> + (c-1)^2 ||theta||^2.
D3_HD double distance_after(Center center, double c, const Sums& sums) {
  if (c == 1) return sqrt(sums.after);
  if (center == Center::reference) return c * sqrt(sums.after);
  const double squared = sums.after + (c - 1) * (2 * sums.inner + (c - 1) * sums.weight);
  return sqrt(squared > 0 ? squared : 0);
}

}  // namespace d3
