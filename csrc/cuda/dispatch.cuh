// SPDX-License-Identifier: Apache-2.0
//
// The kernels that make up a step, in their order. A launcher starts them: `launch(kernel, blocks,
// step)` is a launch on a GPU and a loop in the host tests, and `resident_blocks(kernel)` the
// number of its blocks that run at a time.
#pragma once

#include <algorithm>
#include <limits>
#include <type_traits>

#include "common/check.h"
#include "common/static_switch.h"
#include "cuda/kernels.cuh"
#include "cuda/launch.h"
#include "cuda/shard.cuh"

namespace d3 {

using Kernel = void (*)(const DeviceStep);

inline DeviceStep device_step(const Partition& partition, const CudaStep& call) {
  const StepOptions& o = call.options;
  DeviceStep s;
  s.memory = device_memory(partition, call.memory);
  s.reference_norms = call.reference_norms;
  s.chunks = static_cast<unsigned>(partition.chunks.size());
  s.norm_groups = static_cast<unsigned>(
      std::count_if(partition.norm_groups.begin(), partition.norm_groups.end(),
                    [](const NormGroup& group) { return group.chunks > 0; }));
  s.segments = static_cast<unsigned>(partition.segments.size());
  s.verify = call.verify;
  s.grad_scale = static_cast<const float*>(call.grad_scale.device);
  s.found_inf = static_cast<const float*>(call.found_inf.device);
  s.scalars = scalars_of<float>(o, o.lr.value);
  s.rate = static_cast<float>(1 - o.dampening);
  s.sums = call.phase == Phase::update ? call.sums : nullptr;
  s.totals = call.totals;
  s.held = call.held;
  s.options = o;
  if (call.phase == Phase::update) s.options.center = Center::none;
  s.items = s.options.center == Center::none ? s.chunks : 2 * s.chunks;
  s.has_grads = call.grads.size() <= kGradArguments;
  if (s.has_grads) std::copy(call.grads.begin(), call.grads.end(), s.grads);
  return s;
}

template <UpdateRule kRule>
using RuleOf = std::conditional_t<kRule == UpdateRule::adamw, AdamwRule, SgdRule<kRule>>;

// False for combinations that no group asks for: a group without momentum names the weights' type
// for it, one without reference that of the weights or of the momentum, whichever is narrower.
template <class DTypes, UpdateRule kRule>
constexpr bool kMomentumFits =
    kRule != UpdateRule::sgd ||
    std::is_same_v<typename DTypes::MomentumBuffer, typename DTypes::Weight>;
template <class DTypes, Tracking kTracking>
constexpr bool kReferenceFits =
    kTracking != Tracking::none ||
    std::is_same_v<typename DTypes::Reference, typename DTypes::Weight> ||
    std::is_same_v<typename DTypes::Reference, typename DTypes::MomentumBuffer>;

// Null for combinations that no group asks for.
template <class DTypes, Tracking kTracking, UpdateRule kRule>
Kernel kernel_of() {
  if constexpr (!kMomentumFits<DTypes, kRule> || !kReferenceFits<DTypes, kTracking>) {
    return nullptr;
  } else if constexpr (kTracking == Tracking::none) {
    return update_kernel<DTypes, RuleOf<kRule>>;
  } else {
    return step_kernel<DTypes, kTracking, RuleOf<kRule>>;
  }
}

template <class DTypes>
Kernel kernel_for(Tracking tracking, UpdateRule rule) {
  return static_switch(
      [](auto tracked_as, auto rule_as) {
        return kernel_of<DTypes, decltype(tracked_as)::value, decltype(rule_as)::value>();
      },
      among<Tracking::none, Tracking::measured, Tracking::pushed_p1, Tracking::pushed_p2>(tracking),
      among<UpdateRule::sgd, UpdateRule::heavy_ball, UpdateRule::nesterov, UpdateRule::adamw>(
          rule));
}

// The kernel that ends the step of a shard.
template <class DTypes>
Kernel shard_kernel_for(UpdateRule rule) {
  return static_switch(
      [](auto rule_as) -> Kernel {
        constexpr UpdateRule kRule = decltype(rule_as)::value;
        if constexpr (!kMomentumFits<DTypes, kRule>) return nullptr;
        if constexpr (kMomentumFits<DTypes, kRule>) {
          return shard_kernel<DTypes, RuleOf<kRule>>;
        }
      },
      among<UpdateRule::sgd, UpdateRule::heavy_ball, UpdateRule::nesterov, UpdateRule::adamw>(
          rule));
}

// The kernel whose residency the order of work is made for: all of a dtype's are about alike.
template <class DTypes>
Kernel typical_kernel() {
  return kernel_for<DTypes>(Tracking::pushed_p2, UpdateRule::heavy_ball);
}

// Whether the norms are verified before the step; a learning rate on the device is unknown here,
// and the kernel looks at it.
inline bool may_verify(const CudaStep& call) {
  const StepOptions& o = call.options;
  const double lr = o.lr.device == nullptr ? o.lr.value : std::numeric_limits<double>::infinity();
  return call.verify || (o.weight_decay > 0 && needs_verification(rule_of(o), lr, o.weight_decay));
}

template <class DTypes, class Launcher>
void enqueue(const Partition& partition, const CudaStep& call, const Launcher& launcher) {
  const StepOptions& o = call.options;
  const DeviceStep step = device_step(partition, call);
  const bool projects = call.phase == Phase::project;
  if (o.adamw && !projects) {
    launcher.launch(count_kernel, (step.segments + kThreads - 1) / kThreads, step);
  }
  if (partition.chunks.empty()) return;
  const Tracking tracking = tracking_of(partition.tracked(), o.distance_weight, o.p);
  const Kernel kernel =
      projects ? shard_kernel_for<DTypes>(rule_of(o)) : kernel_for<DTypes>(tracking, rule_of(o));
  D3_CHECK(kernel != nullptr, "an array that the step does not use must have the weights' dtype");
  const auto launch_resident = [&](Kernel resident) {
    launcher.launch(resident, std::min(step.chunks, launcher.resident_blocks(resident)), step);
  };
  if (tracking == Tracking::none) {
    launcher.launch(kernel, step.chunks, step);
    return;
  }
  if (call.phase == Phase::whole && o.p == 2 && may_verify(call)) {
    launch_resident(verify_kernel<DTypes>);
  }
  launch_resident(kernel);
}

}  // namespace d3
