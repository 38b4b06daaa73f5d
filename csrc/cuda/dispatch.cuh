// SPDX-License-Identifier: Apache-2.0
//
// The kernels that make up a step, in their order. `launch(kernel, blocks, step)` starts one: on a
// GPU a launch, in the host tests a loop.
#pragma once

#include <algorithm>
#include <limits>
#include <type_traits>

#include "common/check.h"
#include "common/static_switch.h"
#include "cuda/launch.h"
#include "cuda/projection.cuh"

namespace d3 {

using Kernel = void (*)(const DeviceStep);

inline DeviceStep device_step(const Partition& partition, const CudaStep& call) {
  DeviceStep s;
  s.memory = device_memory(partition, call.memory);
  s.reference_norms = call.reference_norms;
  s.items = static_cast<int64_t>(2 * partition.chunks.size());
  s.grad_scale = static_cast<const float*>(call.grad_scale.device);
  s.found_inf = static_cast<const float*>(call.found_inf.device);
  s.options = call.options;
  return s;
}

// Null for combinations that no group asks for. A group without momentum names the weights' type
// for it, one without reference that of the weights or of the momentum, whichever is narrower. One
// that is not tracked has no projection.
template <class DTypes, Tracking kTracking, Momentum kMomentum, bool kProjects>
Kernel kernel_of() {
  using Weight = typename DTypes::Weight;
  constexpr bool kMomentumFits =
      kMomentum != Momentum::none || std::is_same_v<typename DTypes::MomentumBuffer, Weight>;
  constexpr bool kReferenceFits =
      kTracking != Tracking::none || std::is_same_v<typename DTypes::Reference, Weight> ||
      std::is_same_v<typename DTypes::Reference, typename DTypes::MomentumBuffer>;
  if constexpr (!kMomentumFits || !kReferenceFits || (kProjects && kTracking == Tracking::none)) {
    return nullptr;
  } else if constexpr (kProjects) {
    return step_kernel<DTypes, kTracking, kMomentum>;
  } else {
    return update_kernel<DTypes, kTracking, kMomentum>;
  }
}

template <class DTypes>
Kernel kernel_for(Tracking tracking, Momentum momentum, bool projects) {
  return static_switch(
      [](auto tracked_as, auto momentum_as, auto projected) {
        return kernel_of<DTypes, decltype(tracked_as)::value, decltype(momentum_as)::value,
                         decltype(projected)::value>();
      },
      among<Tracking::none, Tracking::measured, Tracking::pushed_p1, Tracking::pushed_p2>(tracking),
      among<Momentum::none, Momentum::heavy_ball, Momentum::nesterov>(momentum),
      among<false, true>(projects));
}

template <class DTypes, class Launch>
void enqueue(const Partition& partition, const CudaStep& call, const Launch& launch) {
  if (partition.chunks.empty()) return;
  const auto blocks = static_cast<unsigned>(partition.chunks.size());
  const StepOptions& o = call.options;
  const DeviceStep step = device_step(partition, call);
  const Momentum momentum = momentum_of(o.momentum, o.nesterov);
  const Tracking tracking = tracking_of(partition.tracked(), o.distance_weight, o.p);
  // A learning rate on the device is unknown here: assume the worst.
  const double lr = o.lr.device == nullptr ? o.lr.value : std::numeric_limits<double>::infinity();
  const bool verify =
      call.verify || (o.weight_decay > 0 && needs_verification(momentum, lr, o.weight_decay));
  const bool projects = o.center != Center::none;
  const Kernel kernel = kernel_for<DTypes>(tracking, momentum, projects);
  D3_CHECK(kernel != nullptr, "an array that the step does not use must have the weights' dtype");
  if (tracking != Tracking::none && o.p == 2 && verify) {
    launch(verify_kernel<DTypes>, blocks, step);
  }
  launch(kernel, projects ? std::min(blocks, static_cast<unsigned>(kResidentBlocks)) : blocks,
         step);
}

}  // namespace d3
