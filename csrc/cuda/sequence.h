// SPDX-License-Identifier: Apache-2.0
//
// Which kernels make up a step, and in which order. `launch(kernel, blocks, step)` starts one; on a
// GPU that is a launch, in the host tests a loop. Include after persistent.cuh.
#pragma once

#include <algorithm>

#include "check.h"
#include "cuda/launch.h"
#include "cuda/order.h"

namespace d3 {

inline int64_t workspace_bytes(const Cut& cut) {
  return static_cast<int64_t>(cut.chunks.size() * sizeof(Sums) +
                              cut.units.size() * sizeof(UnitState) + sizeof(Queue));
}

inline DeviceStep device_step(const Cut& cut, const CudaStep& call) {
  DeviceStep s;
  const char* table = static_cast<const char*>(call.table);
  s.segments = reinterpret_cast<const Segment*>(table);
  table += cut.segments.size() * sizeof(Segment);
  s.units = reinterpret_cast<const Unit*>(table);
  table += cut.units.size() * sizeof(Unit);
  s.chunks = reinterpret_cast<const Chunk*>(table);
  table += cut.chunks.size() * sizeof(Chunk);
  s.order = reinterpret_cast<const int64_t*>(table);
  s.items = static_cast<int64_t>(2 * cut.chunks.size());
  s.grads = static_cast<const GradEntry*>(call.grads);
  s.reference_norms = call.reference_norms;
  s.partial = static_cast<Sums*>(call.workspace);
  s.states = reinterpret_cast<UnitState*>(s.partial + cut.chunks.size());
  s.queue = reinterpret_cast<Queue*>(s.states + cut.units.size());
  s.lr = call.lr;
  s.lower = call.lower;
  s.upper = call.upper;
  s.grad_scale = call.grad_scale;
  s.found_inf = call.found_inf;
  s.options = call.options;
  return s;
}

using Kernel = void (*)(const DeviceStep);

// Null where it would be asked for by no group: one without momentum or reference has them in the
// weights' own type, and one that is not tracked has no projection.
template <class K, Tracking T, Momentum M>
Kernel kernel_for(bool projects) {
  using W = typename K::Weight;
  constexpr bool kMomentum = M != Momentum::none || std::is_same_v<typename K::Momentum, W>;
  constexpr bool kReference = T != Tracking::none || std::is_same_v<typename K::Reference, W>;
  if constexpr (!kMomentum || !kReference) {
    return nullptr;
  } else if constexpr (T == Tracking::none) {
    return projects ? nullptr : update_kernel<K, T, M>;
  } else {
    return projects ? step_kernel<K, T, M> : update_kernel<K, T, M>;
  }
}

template <class K, Tracking T>
Kernel kernel_for(Momentum momentum, bool projects) {
  switch (momentum) {
    case Momentum::heavy_ball:
      return kernel_for<K, T, Momentum::heavy_ball>(projects);
    case Momentum::nesterov:
      return kernel_for<K, T, Momentum::nesterov>(projects);
    default:
      return kernel_for<K, T, Momentum::none>(projects);
  }
}

template <class K>
Kernel kernel_for(Tracking tracking, Momentum momentum, bool projects) {
  switch (tracking) {
    case Tracking::measured:
      return kernel_for<K, Tracking::measured>(momentum, projects);
    case Tracking::pushed_p1:
      return kernel_for<K, Tracking::pushed_p1>(momentum, projects);
    case Tracking::pushed_p2:
      return kernel_for<K, Tracking::pushed_p2>(momentum, projects);
    default:
      return kernel_for<K, Tracking::none>(momentum, projects);
  }
}

template <class K, class Launch>
void enqueue(const Cut& cut, const CudaStep& call, const Launch& launch) {
  if (cut.chunks.empty()) return;
  const auto blocks = static_cast<unsigned>(cut.chunks.size());
  const StepOptions& o = call.options;
  const DeviceStep step = device_step(cut, call);
  const Momentum momentum = momentum_of(o.momentum, o.nesterov);
  const Tracking tracking =
      tracking_of(cut.segments[0].reference != nullptr, o.distance_weight, o.p);
  // A learning rate on the device is unknown here: assume the worst.
  const double lr = call.lr.at == nullptr ? o.lr : std::numeric_limits<double>::infinity();
  const bool verify =
      call.verify || (o.weight_decay > 0 && needs_verification(momentum, lr, o.weight_decay));
  const bool projects = static_cast<Center>(o.center) != Center::none;
  const Kernel kernel = kernel_for<K>(tracking, momentum, projects);
  D3_CHECK(kernel != nullptr, "no kernel leaves an array of another type than the weights unused");
  if (tracking != Tracking::none && o.p == 2 && verify) launch(verify_kernel<K>, blocks, step);
  const auto resident = std::min(blocks, static_cast<unsigned>(kResident));
  launch(kernel, projects ? resident : blocks, step);
}

}  // namespace d3
