// SPDX-License-Identifier: Apache-2.0
//
// The mathematics of one D3 step, element by element and norm by norm. Both backends include this
// file; they differ only in how the work is cut up and summed. Notation (arXiv 2411.09585):
//
//   delta = theta - theta_0,  D = ||delta||_p,  u = w * dD/dtheta
//   d = g + weight_decay * theta - u
//   v <- momentum * v + rate * d            rate = 1 on the first step, else 1 - dampening
//   theta <- Pi(theta - lr * (nesterov ? d + momentum * v : v))
//
// V is the arithmetic type of one element: float or double, or on the CPU a GCC/Clang vector of
// them; T is its scalar. Expressions are written so that both read the same.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#if defined(__CUDACC__)
#define D3_HD __host__ __device__ __forceinline__
#else
#define D3_HD inline __attribute__((always_inline))
#endif

namespace d3 {

// Which gradient of the distance is added: none, sign(delta) (p = 1) or delta / D (p = 2).
enum class Push : int { none = 0, p1 = 1, p2 = 2 };

enum class Momentum : int { none = 0, heavy_ball = 1, nesterov = 2 };
// What the projection rescales around: nothing, the origin (norm sets), theta_0 (distance sets).
enum class Center : int { none = 0, origin = 1, reference = 2 };

// What the update does with theta_0: nothing (plain SGD), only measure the distance, or push as
// well.
enum class Tracking : int { none = 0, measured = 1, pushed_p1 = 2, pushed_p2 = 3 };

// The numbers of one step, the same for every element of a group.
template <class T>
struct Scalars {
  T lr;
  T momentum;
  T weight_decay;
  T grad_sign;        // -1 where maximize, else 1
  T distance_weight;  // w
};

D3_HD Momentum momentum_of(double momentum, bool nesterov) {
  return momentum == 0 ? Momentum::none : nesterov ? Momentum::nesterov : Momentum::heavy_ball;
}

D3_HD Tracking tracking_of(bool tracked, double distance_weight, int p) {
  if (!tracked) return Tracking::none;
  if (distance_weight == 0) return Tracking::measured;
  return p == 1 ? Tracking::pushed_p1 : Tracking::pushed_p2;
}

// `delta_before` divides by 1 - lr * weight_decay; where that nears 0 the norm is checked up front.
D3_HD bool needs_verification(Momentum momentum, double lr, double weight_decay) {
  return momentum != Momentum::heavy_ball && !(lr * weight_decay <= 0.5);
}

// What a sweep accumulates, so that no other sweep has to read the same bytes again.
struct Sums {
  double before = 0;  // sum of delta^2 before the update: checks the norm that was handed over
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
template <class T>
D3_HD T inverse_distance(double distance) {
  const double cap = sizeof(T) == 4 ? 1e37 : 1e300;
  if (!(distance > 0)) return T(0);
  return static_cast<T>(1 / distance < cap ? 1 / distance : cap);
}

// dD/dtheta. |delta_i| <= D holds for a true norm, so for p = 2 the clamp changes nothing; for a
// stale norm it keeps the update small enough to be undone exactly (see `mend`).
template <class T, Push P, class V>
D3_HD V distance_gradient(V delta, T inverse) {
  const V zero = V();
  const V one = zero + T(1);
  if constexpr (P == Push::p1) {
    return delta > zero ? one : (delta < zero ? -one : delta * T(0));
  } else {
    const V ratio = delta * inverse;
    return ratio > one ? one : (ratio < -one ? -one : ratio);
  }
}

// One element's update. Reads and writes v; returns the new theta, not yet projected.
template <class T, Push P, Momentum M, class V>
D3_HD V advance(V theta, V delta, V grad, V& v, const Scalars<T>& s, T rate, T inverse) {
  V d = grad * s.grad_sign + theta * s.weight_decay;
  if constexpr (P != Push::none)
    d = d - distance_gradient<T, P>(delta, inverse) * s.distance_weight;
  if constexpr (M == Momentum::none) return theta - d * s.lr;
  v = v * s.momentum + d * rate;
  if constexpr (M == Momentum::nesterov) return theta - (d + v * s.momentum) * s.lr;
  return theta - v * s.lr;
}

// delta as it was before `advance<p2>` ran with `inverse`, from what it left behind. Without
// Nesterov the step is lr * v; otherwise the update is inverted, which is linear in delta on
// either side of the clamp. Needs lr * weight_decay < 1 (the caller sees to it).
template <class T, Momentum M, class V>
D3_HD V delta_before(V theta, V reference, V grad, V v, const Scalars<T>& s, T inverse) {
  if constexpr (M == Momentum::heavy_ball) return theta + v * s.lr - reference;
  const V zero = V();
  const T keep = T(1) - s.lr * s.weight_decay;
  const T push = s.lr * s.distance_weight;
  V step = grad * s.grad_sign;
  if constexpr (M == Momentum::nesterov) step = step + v * s.momentum;
  const V base = theta + step * s.lr - reference * keep;  // keep*delta + push*clamp(delta*inverse)
  const V inside = base / (keep + push * inverse);
  const V sign = base > zero ? zero + T(1) : zero - T(1);
  const V outside = (base - sign * push) / keep;
  return (inside * inverse) * sign > zero + T(1) ? outside : inside;
}

// Replaces the push made with a stale norm by the right one; theta, v as `advance` left them.
template <class T, Momentum M, class V>
D3_HD V mend(V theta, V reference, V grad, V& v, const Scalars<T>& s, T rate, T stale, T right) {
  const V delta = delta_before<T, M>(theta, reference, grad, v, s, stale);
  const V change = (distance_gradient<T, Push::p2>(delta, stale) -
                    distance_gradient<T, Push::p2>(delta, right)) *
                   s.distance_weight;  // d_right - d_stale
  if constexpr (M == Momentum::none) return theta - change * s.lr;
  v = v + change * rate;
  if constexpr (M == Momentum::nesterov)
    return theta - (change + change * (rate * s.momentum)) * s.lr;
  return theta - change * (rate * s.lr);
}

// Whether a handed-over norm is off by more than the rounding of stored weights explains.
template <class T>
D3_HD bool is_stale(double handed, double actual, double rounding) {
  const double off = handed > actual ? handed - actual : actual - handed;
  const double tolerance = sizeof(T) == 4 ? 1e-5 : 1e-12;
  return actual * 0 == 0 &&
         !(off <= tolerance * actual + rounding);  // never for inf or NaN weights
}

// A shell lower <= ||x|| <= upper, absolute.
struct Shell {
  Center center = Center::none;
  double lower = 0;
  double upper = std::numeric_limits<double>::infinity();
};

// The factor that brings the updated weights into the shell: 1 inside it and at norm 0. Rounded to
// T, in which it will be applied, so that `distance_after` speaks of what is stored.
template <class T>
D3_HD double projection_coefficient(const Shell& shell, const Sums& sums) {
  if (shell.center == Center::none) return 1;
  const double norm = sqrt(shell.center == Center::origin ? sums.weight : sums.after);
  if (!(norm > 0)) return 1;
  if (norm < shell.lower) return static_cast<T>(shell.lower / norm);
  if (norm > shell.upper) return static_cast<T>(shell.upper / norm);
  return 1;
}

// ||theta - theta_0|| after the projection, without another sweep:
// ||c theta - theta_0||^2 = D^2 + 2 (c-1) <delta, theta> + (c-1)^2 ||theta||^2.
D3_HD double distance_after(Center center, double c, const Sums& sums) {
  if (c == 1) return sqrt(sums.after);
  if (center == Center::reference) return c * sqrt(sums.after);
  const double squared = sums.after + (c - 1) * (2 * sums.inner + (c - 1) * sums.weight);
  return sqrt(squared > 0 ? squared : 0);
}

}  // namespace d3
