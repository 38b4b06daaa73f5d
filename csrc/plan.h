// SPDX-License-Identifier: Apache-2.0
//
// How the tensors of a group are cut up. A segment is one tensor; a unit is the set of segments
// that share one norm (scope "tensor": one segment, scope "group": all); a chunk is a run of
// elements of one segment that one core or one CUDA block takes in one go. Sums are kept per chunk
// and added in chunk order, so results do not depend on who took which chunk.
#pragma once

#include <cstdint>
#include <vector>

namespace d3 {

// One tensor: dense storage of numel elements, all arrays laid out alike; their types are the
// group's (see `stored.h`).
struct Segment {
  void* theta = nullptr;            // [numel]
  void* compensation = nullptr;     // [numel], of tracked weights of a half type, else null
  const void* reference = nullptr;  // [numel], null where the group is not tracked
  void* momentum = nullptr;         // [numel], null without momentum
  double* distance = nullptr;       // [1], norm handed from step to step; null where not carried
  int64_t numel = 0;
  int64_t first_chunk = 0;
  int64_t chunks = 0;
};

struct Chunk {
  int64_t segment = 0;
  int64_t unit = 0;
  int64_t offset = 0;  // first element within the segment
  int64_t length = 0;
};

// Ranges of consecutive segments and chunks.
struct Unit {
  int64_t first_segment = 0;
  int64_t segments = 0;
  int64_t first_chunk = 0;
  int64_t chunks = 0;
  int64_t elements = 0;
};

struct Cut {
  std::vector<Segment> segments;
  std::vector<Unit> units;
  std::vector<Chunk> chunks;
};

// Cuts segments into chunks of at most chunk_length elements; a segment without elements gets no
// chunk. joint: all segments form one unit, else each is its own.
Cut cut(std::vector<Segment> segments, bool joint, int64_t chunk_length);

// The options of one step, in units of the Python interface.
struct StepOptions {
  double lr = 0, momentum = 0, dampening = 0, weight_decay = 0;
  bool nesterov = false, maximize = false;
  double distance_weight = 0;
  int p = 2;                    // 1 or 2
  int center = 0;               // Center
  double lower = 0, upper = 0;  // bounds of the shell
  bool relative = false;        // bounds in units of the reference norm
  double grad_scale = 1;        // gradients are divided by it, in place
};

}  // namespace d3
