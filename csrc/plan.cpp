// SPDX-License-Identifier: Apache-2.0
#include "plan.h"

#include <algorithm>

#include "check.h"

namespace d3 {

Cut cut(std::vector<Segment> segments, bool joint, int64_t chunk_length) {
  D3_CHECK(chunk_length > 0, "chunk_length must be > 0, got " << chunk_length);
  Cut result;
  for (size_t i = 0; i < segments.size(); ++i) {
    Segment& segment = segments[i];
    D3_CHECK(segment.numel >= 0, "numel must be >= 0, got " << segment.numel);
    if (result.units.empty() || !joint) {
      Unit unit;
      unit.first_segment = static_cast<int64_t>(i);
      unit.first_chunk = static_cast<int64_t>(result.chunks.size());
      result.units.push_back(unit);
    }
    Unit& unit = result.units.back();
    const int64_t index = static_cast<int64_t>(result.units.size()) - 1;
    segment.first_chunk = static_cast<int64_t>(result.chunks.size());
    for (int64_t at = 0; at < segment.numel; at += chunk_length) {
      const int64_t length = std::min(chunk_length, segment.numel - at);
      result.chunks.push_back({static_cast<int64_t>(i), index, at, length});
    }
    segment.chunks = static_cast<int64_t>(result.chunks.size()) - segment.first_chunk;
    unit.chunks += segment.chunks;
    ++unit.segments;
    unit.elements += segment.numel;
  }
  result.segments = std::move(segments);
  return result;
}

}  // namespace d3
