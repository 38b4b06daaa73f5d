// SPDX-License-Identifier: Apache-2.0
//
// The functions of csrc/common for calls from Python, in double or over arrays of float.
#include <cstdint>

#include "common/dtypes.h"
#include "common/options.h"
#include "common/static_switch.h"
#include "common/step_math.h"

using namespace d3;

namespace {

using Real = double;

// One step of one element whose push was made with `inverse`, corrected to `right` where asked.
template <Push kPush, UpdateRule kRule>
void step(const double* in, double* out) {
  const Scalars<Real> s = {in[4], in[5], in[6], in[7], in[8]};
  const double theta = in[0], reference = in[1], grad = in[2], rate = in[9];
  double v = in[3];
  const double inverse = in[10], right = in[11];
  double next =
      update_element<Real, kPush, kRule>(theta, theta - reference, grad, v, s, rate, inverse);
  if (kPush == Push::p2 && right != inverse) {
    next = correct_stale_norm<Real, kRule>(next, reference, grad, v, s, rate, inverse, right);
  }
  out[0] = next;
  out[1] = v;
}

// The same by AdamW; s: the step's numbers.
template <Push kPush>
void step_adamw(const double* in, const Scalars<Real>& s, const Rates<Real>& r, double* out) {
  const double theta = in[0], reference = in[1], grad = in[2], inverse = in[13], right = in[14];
  Buffers<double> b = {in[3], in[4]};
  double next = update_by_rule<Real, kPush, UpdateRule::adamw>(theta, theta - reference, grad, b, s,
                                                             r, inverse);
  if (kPush == Push::p2 && right != inverse) {
    next = correct_by_rule<Real, UpdateRule::adamw>(next, reference, grad, b, s, r, inverse, right);
  }
  out[0] = next;
  out[1] = b.momentum;
  out[2] = b.variance;
}

template <class Half>
void round_trip(const float* x, int64_t n, float* out, uint16_t* bits) {
  for (int64_t i = 0; i < n; ++i) {
    const Half half = narrow<Half>(x[i]);
    bits[i] = half.bits;
    out[i] = widen(half);
  }
}

}  // namespace

extern "C" {

// in: theta, reference, grad, v, lr, momentum, weight_decay, grad_sign, distance_weight, rate, 1/D,
// right 1/D. out: theta, v.
void step_element(int push, int momentum, const double* in, double* out) {
  static_switch([&](auto pushed, auto momentum_as) { step<pushed(), momentum_as()>(in, out); },
                among<Push::none, Push::p1, Push::p2>(static_cast<Push>(push)),
                among<UpdateRule::sgd, UpdateRule::heavy_ball, UpdateRule::nesterov>(
                    static_cast<UpdateRule>(momentum)));
}

// in: theta, reference, grad, m, s, lr, beta_1, beta_2, eps, weight_decay, distance_weight, steps
// taken, decoupled push, 1/D, right 1/D. out: theta, m, s.
void step_adamw(int push, bool maximize, const double* in, double* out) {
  StepOptions o;
  o.adamw = true;
  o.beta1 = in[6];
  o.beta2 = in[7];
  o.eps = in[8];
  o.weight_decay = in[9];
  o.distance_weight = in[10];
  o.decoupled_push = in[12] != 0;
  o.maximize = maximize;
  const Scalars<Real> s = scalars_of<Real>(o, in[5]);
  const Rates<Real> r = rates_of<Real>(o, in[5], false, in[11]);
  static_switch([&](auto pushed) { step_adamw<pushed()>(in, s, r, out); },
                among<Push::none, Push::p1, Push::p2>(static_cast<Push>(push)));
}

// sums: before, after, weight, inner. out: coefficient, distance after the projection.
void project(int center, double lower, double upper, const double* sums, double* out) {
  const Bounds bounds = {static_cast<Center>(center), lower, upper};
  const Sums s = {sums[0], sums[1], sums[2], sums[3]};
  out[0] = projection_coefficient<Real>(bounds, s);
  out[1] = distance_after(bounds.center, out[0], s);
}

bool stale(double cached, double actual, double rounding) {
  return is_stale<float>(cached, actual, rounding);
}

void round_bf16(const float* x, int64_t n, float* out, uint16_t* bits) {
  round_trip<Bf16>(x, n, out, bits);
}
void round_f16(const float* x, int64_t n, float* out, uint16_t* bits) {
  round_trip<F16>(x, n, out, bits);
}

float load_bf16(float theta, float c) { return kahan_load<Bf16>(theta, c); }

// Which of the listed values the switch chose: 10 * first + second.
int chosen(int first, bool second) {
  return static_switch([](auto a, auto b) { return 10 * a() + (b() ? 1 : 0); },
                       among<3, 1, 2>(first), among<false, true>(second));
}

}  // extern "C"
