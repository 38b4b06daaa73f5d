// SPDX-License-Identifier: Apache-2.0
//
// The options of one step, in the units of the Python interface.
#pragma once

#include <cmath>
#include <limits>

#include "common/partition.h"
#include "common/step_math.h"

namespace d3 {

// A number that a step reads: known to the host, or in device memory where only kernels read it.
struct Scalar {
  double value = 0;
  const void* device = nullptr;  // [1], float, or double where is_double; null: `value` counts
  bool is_double = false;
};

// What a call takes: a whole step, or a part of the step of a shard, whose norms need the sums of
// the other ranks. A norm group of a shard has one cached norm, that of all ranks.
enum class Phase : int {
  whole = 0,
  update = 1,   // all but the projection; leaves this rank's sums
  correct = 2,  // with the totals: replaces a push made with a stale norm, leaves new sums
  project = 3,  // with the totals; on a GPU, where no host looks at them, corrects as well
};

struct StepOptions {
  Scalar lr;
  double momentum = 0, dampening = 0, weight_decay = 0;
  bool nesterov = false, maximize = false;
  bool adamw = false;  // the rule, with the following options; else SGD's
  double beta1 = 0, beta2 = 0, eps = 0;
  bool decoupled_push = false;
  double distance_weight = 0;
  int p = 2;  // of the distance's norm, 1 or 2
  Center center = Center::none;
  Scalar lower, upper{std::numeric_limits<double>::infinity()};  // bounds of the constraint set
  bool relative = false;                                         // bounds in units of ||theta_0||
};

// Throws std::invalid_argument where a group with this partition cannot take such a step.
void check_options(const Partition& partition, const StepOptions& options);

D3_HD UpdateRule rule_of(const StepOptions& o) {
  return o.adamw ? UpdateRule::adamw : sgd_rule_of(o.momentum, o.nesterov);
}

template <class Real>
D3_HD Scalars<Real> scalars_of(const StepOptions& o, double lr) {
  const double coupled = o.decoupled_push ? 0 : o.distance_weight;
  Scalars<Real> s = {static_cast<Real>(lr), static_cast<Real>(o.momentum),
                     static_cast<Real>(o.weight_decay), o.maximize ? Real(-1) : Real(1),
                     static_cast<Real>(coupled)};
  if (o.adamw) {
    s.beta1 = static_cast<Real>(o.beta1);
    s.beta2 = static_cast<Real>(o.beta2);
    s.eps = static_cast<Real>(o.eps);
    s.rate1 = static_cast<Real>(1 - o.beta1);
    s.rate2 = static_cast<Real>(1 - o.beta2);
    s.keep = static_cast<Real>(1 - lr * o.weight_decay);
    s.decoupled_push = static_cast<Real>(lr * (o.distance_weight - coupled));
  }
  return s;
}

// steps: that the buffers of the tensor hold, this one not counted; of AdamW. first: SGD's buffer
// holds none.
template <class Real>
D3_HD Rates<Real> rates_of(const StepOptions& o, double lr, bool first, double steps) {
  if (o.adamw) return adamw_rates<Real>(lr, o.beta1, o.beta2, steps + 1);
  Rates<Real> rates;
  rates.rate = first ? Real(1) : static_cast<Real>(1 - o.dampening);
  return rates;
}

// Absolute bounds. reference_norm: ||theta_0|| of the norm group where bounds are relative.
D3_HD Bounds bounds_of(const StepOptions& o, double lower, double upper, double reference_norm) {
  const double unit = o.relative ? reference_norm : 1.0;
  Bounds bounds;
  bounds.center = o.center;
  bounds.lower = lower * unit;
  if (upper * 0 == 0) bounds.upper = upper * unit;  // infinity * 0 would be NaN
  return bounds;
}

}  // namespace d3
