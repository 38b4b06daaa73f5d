// SPDX-License-Identifier: Apache-2.0
//
// The order in which the blocks of a step with projection take their work.
#pragma once

#include <cstdint>
#include <vector>

#include "common/partition.h"

namespace d3 {

// Work items: a chunk's index stands for its update, the complement ~index for its projection.
// Every chunk is updated and projected once. A norm group is projected after `lag` more updates
// than its own have been handed out. With a lag of as many blocks as the GPU holds at a time, that
// is about when its own are done, so that no block waits for long, and the weights are still in L2.
// Within a norm group the chunk updated last is projected first.
inline std::vector<int64_t> work_order(const Partition& partition, int64_t lag) {
  std::vector<int64_t> order;
  order.reserve(2 * partition.chunks.size());
  std::vector<int64_t> ended;  // updates handed out by the end of each norm group
  size_t due = 0;              // the norm group that is projected next
  int64_t updates = 0;
  const auto project = [&] {
    const NormGroup& group = partition.norm_groups[due++];
    for (int64_t i = group.chunks; i-- > 0;) order.push_back(~(group.first_chunk + i));
  };
  for (const NormGroup& group : partition.norm_groups) {
    for (int64_t i = 0; i < group.chunks; ++i) {
      order.push_back(group.first_chunk + i);
      ++updates;
      while (due < ended.size() && updates - ended[due] >= lag) project();
    }
    ended.push_back(updates);
  }
  while (due < partition.norm_groups.size()) project();
  return order;
}

}  // namespace d3
