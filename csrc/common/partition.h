// SPDX-License-Identifier: Apache-2.0
//
// How the tensors of a param group are partitioned. A segment is one tensor. A norm group is the
// set of segments that share one norm (scope "tensor": one segment, scope "group": all). A chunk is
// a run of elements of one segment that one core or one CUDA block processes in one go. Sums are
// kept per chunk and added in chunk order, so results do not depend on who processed which chunk.
#pragma once

#include <cstdint>
#include <vector>

namespace d3 {

// One tensor: dense storage of numel elements, all arrays in the same layout. Their types are those
// of the param group (see dtypes.h).
struct Segment {
  void* theta = nullptr;            // [numel]
  void* compensation = nullptr;     // [numel], of tracked weights of a half type, else null
  const void* reference = nullptr;  // [numel], null where the group is not tracked
  void* momentum = nullptr;         // [numel], null without momentum
  void* variance = nullptr;         // [numel], second moments in the arithmetic type, or null
  float* steps = nullptr;           // [1], steps that the moments hold, or null
  double* distance = nullptr;       // [1], the cached norm, null where none is kept
  int64_t numel = 0;
  int64_t whole = 0;   // elements of the tensor over all ranks, numel where this is no shard
  bool counts = true;  // false: a replica whose sums another rank counts
  int64_t first_chunk = 0;
  int64_t chunks = 0;
};

struct Chunk {
  int64_t segment = 0;
  int64_t norm_group = 0;
  int64_t offset = 0;  // first element within the segment
  int64_t length = 0;
};

// Ranges of consecutive segments and chunks.
struct NormGroup {
  int64_t first_segment = 0;
  int64_t segments = 0;
  int64_t first_chunk = 0;
  int64_t chunks = 0;
  int64_t elements = 0;
  int64_t whole = 0;  // elements over all ranks
};

struct Partition {
  std::vector<Segment> segments;
  std::vector<NormGroup> norm_groups;
  std::vector<Chunk> chunks;

  bool tracked() const { return !segments.empty() && segments[0].reference != nullptr; }
};

// Divides segments into chunks of at most chunk_length elements; a segment without elements gets
// none. joint_norm: all segments form one norm group, else each is its own.
Partition make_partition(std::vector<Segment> segments, bool joint_norm, int64_t chunk_length);

}  // namespace d3
