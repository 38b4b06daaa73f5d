// SPDX-License-Identifier: Apache-2.0
#include "common/options.h"

#include "common/check.h"

namespace d3 {

void check_options(const Partition& partition, const StepOptions& o) {
  const Segment first = partition.segments.empty() ? Segment() : partition.segments[0];
  const bool projects = o.center != Center::none;
  D3_CHECK_ARG("p", o.p, o.p == 1 || o.p == 2, "must be 1 or 2");
  D3_CHECK_ARG("distance_weight", o.distance_weight, partition.tracked() || o.distance_weight == 0,
               "must be 0 without a reference");
  D3_CHECK_ARG("center", static_cast<int>(o.center), partition.tracked() || !projects,
               "must be none without a reference");
  D3_CHECK_ARG("p", o.p, !partition.tracked() || o.p == 1 || first.distance != nullptr,
               "must be 1 without cached norms");
  D3_CHECK_ARG("momentum", o.momentum, o.momentum == 0 || first.momentum != nullptr,
               "must be 0 without momentum buffers");
  const bool buffered = first.momentum && first.variance && first.steps;
  D3_CHECK_ARG("adamw", o.adamw, !o.adamw || partition.segments.empty() || buffered,
               "must be false without both moments and step counts");
  const bool known = o.lower.device == nullptr && o.upper.device == nullptr;
  D3_CHECK_ARG("lower", o.lower.value, !projects || !known || o.lower.value <= o.upper.value,
               "must be <= upper = " << o.upper.value);
}

}  // namespace d3
