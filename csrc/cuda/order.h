// SPDX-License-Identifier: Apache-2.0
//
// In which order the blocks of a step with projection take their work.
#pragma once

#include <cstdint>
#include <vector>

#include "plan.h"

namespace d3 {

// Blocks of one launch, and updates that are in the air at a time: what a large GPU keeps resident.
// More than fit wait outside and find nothing left; fewer leave a larger GPU a little idle.
constexpr int64_t kResident = 512;

// Items: a chunk's index for its update, the complement ~index for its projection. Every chunk is
// updated and projected once, and a unit is projected when `lag` other updates have been handed out
// since its own: about when they are done, so that no block waits for long, and soon enough to find
// the weights in cache. Within a unit the last chunk written is the first one projected.
inline std::vector<int64_t> order_of(const Cut& cut, int64_t lag) {
  std::vector<int64_t> order;
  order.reserve(2 * cut.chunks.size());
  std::vector<int64_t> ended;  // updates handed out when the unit's own were
  size_t due = 0;              // the unit that is projected next
  int64_t updates = 0;
  const auto project = [&] {
    const Unit& unit = cut.units[due++];
    for (int64_t i = unit.chunks; i-- > 0;) order.push_back(~(unit.first_chunk + i));
  };
  for (const Unit& unit : cut.units) {
    for (int64_t i = 0; i < unit.chunks; ++i) {
      order.push_back(unit.first_chunk + i);
      ++updates;
      while (due < ended.size() && updates - ended[due] >= lag) project();
    }
    ended.push_back(updates);
  }
  while (due < cut.units.size()) project();
  return order;
}

}  // namespace d3
