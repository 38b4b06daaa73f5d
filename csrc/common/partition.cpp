// SPDX-License-Identifier: Apache-2.0
#include "common/partition.h"

#include <algorithm>
#include <utility>

#include "common/check.h"

namespace d3 {

Partition make_partition(std::vector<Segment> segments, bool joint_norm, int64_t chunk_length) {
  D3_CHECK_ARG("chunk_length", chunk_length, chunk_length > 0, "must be > 0");
  Partition result;
  for (size_t i = 0; i < segments.size(); ++i) {
    Segment& segment = segments[i];
    D3_CHECK_ARG("numel", segment.numel, segment.numel >= 0, "must be >= 0");
    const auto first_chunk = static_cast<int64_t>(result.chunks.size());
    if (result.norm_groups.empty() || !joint_norm) {
      NormGroup group;
      group.first_segment = static_cast<int64_t>(i);
      group.first_chunk = first_chunk;
      result.norm_groups.push_back(group);
    }
    NormGroup& group = result.norm_groups.back();
    const int64_t index = static_cast<int64_t>(result.norm_groups.size()) - 1;
    for (int64_t at = 0; at < segment.numel; at += chunk_length) {
      const int64_t length = std::min(chunk_length, segment.numel - at);
      result.chunks.push_back({static_cast<int64_t>(i), index, at, length});
    }
    segment.first_chunk = first_chunk;
    segment.chunks = static_cast<int64_t>(result.chunks.size()) - first_chunk;
    group.chunks += segment.chunks;
    ++group.segments;
    group.elements += segment.numel;
    group.whole += segment.whole;
  }
  result.segments = std::move(segments);
  return result;
}

}  // namespace d3
