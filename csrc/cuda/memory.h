// SPDX-License-Identifier: Apache-2.0
//
// The device memory of one plan: tables that never change, the gradients' table, and the workspace
// that kernels keep between steps. It is one allocation, made by torch and passed in; this file
// alone knows its layout.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "common/partition.h"
#include "common/step_math.h"
#include "cuda/schedule.h"

namespace d3 {

// A segment's gradient in one step.
struct GradEntry {
  void* grad = nullptr;    // [numel]
  int64_t first_step = 0;  // 1 where the momentum buffer holds no step yet
};

// So many entries travel as arguments of a step's launch, which may carry 4 KiB. Those of a longer
// list lie in device memory, and are rewritten by a launch of their own when a gradient moves.
constexpr size_t kGradArguments = 224;

// State of a norm group between kernels and steps; zero before the first step.
struct GroupState {
  double cached_norm;  // D before the coming step
  double c;            // projection coefficient of this step
  unsigned finished;   // chunks of segments whose sums are there, back to zero with the last
  unsigned ready;      // c is that of this step
  unsigned projected;  // chunks that have read c; the last one clears `ready`
  unsigned padding;
};

// A norm group whose cached norm was stale; its chunks are corrected by blocks that would wait.
// Zero between steps.
struct Correction {
  unsigned group;      // 1 + the norm group's index, 0: no entry yet
  unsigned next;       // chunk of the group that is corrected next
  float stale, right;  // 1 / D as the update had it, and as it should have been
};

// What the blocks of a launch share; zero between steps.
struct Queue {
  unsigned next;     // item that is taken next
  unsigned decided;  // norm groups whose projection coefficient is known
  unsigned stale;    // entries of `corrections`
  unsigned open;     // first entry with chunks that nobody has taken
  unsigned done;     // blocks that are through
  unsigned padding;
};

struct DeviceMemory {
  Segment* segments;
  NormGroup* norm_groups;
  Chunk* chunks;
  int64_t* order;    // [items], see schedule.h
  GradEntry* grads;  // [segments], not read where they are arguments
  Sums* partial;     // [chunks], workspace from here on
  Sums* segment_sums;
  unsigned* finished_chunks;  // [segments], back to zero with the last
  GroupState* states;         // [norm groups]
  Correction* corrections;    // [norm groups + 1], the last one stays zero
  Queue* queue;
};

// Where everything lies in an allocation at `base`, 8-byte aligned. bytes: receives its size.
inline DeviceMemory device_memory(const Partition& partition, void* base,
                                  int64_t* bytes = nullptr) {
  char* next = static_cast<char*>(base);
  const auto take = [&next](auto*& array, size_t count) {
    array = reinterpret_cast<std::remove_reference_t<decltype(array)>>(next);
    next += (count * sizeof(*array) + 7) / 8 * 8;
  };
  const size_t segments = partition.segments.size(), chunks = partition.chunks.size();
  const size_t norm_groups = partition.norm_groups.size();
  DeviceMemory memory;
  take(memory.segments, segments);
  take(memory.norm_groups, norm_groups);
  take(memory.chunks, chunks);
  take(memory.order, 2 * chunks);
  take(memory.grads, segments);
  take(memory.partial, chunks);
  take(memory.segment_sums, segments);
  take(memory.finished_chunks, segments);
  take(memory.states, norm_groups);
  take(memory.corrections, norm_groups + 1);
  take(memory.queue, 1);
  if (bytes != nullptr) *bytes = next - static_cast<char*>(base);
  return memory;
}

// The number of bytes that `device_memory` divides up.
inline int64_t device_memory_bytes(const Partition& partition) {
  int64_t bytes = 0;
  device_memory(partition, nullptr, &bytes);
  return bytes;
}

// Appends the bytes of the items; their size is a multiple of 8.
template <class Item>
void append_words(std::vector<int64_t>& words, const std::vector<Item>& items) {
  static_assert(sizeof(Item) % 8 == 0, "items must be whole words");
  if (items.empty()) return;
  const size_t at = words.size();
  words.resize(at + items.size() * sizeof(Item) / 8);
  memcpy(words.data() + at, items.data(), items.size() * sizeof(Item));
}

// The tables that never change, segments to order, as they lie at the start of the memory.
inline std::vector<int64_t> table_words(const Partition& partition, int64_t lag) {
  std::vector<int64_t> words;
  append_words(words, partition.segments);
  append_words(words, partition.norm_groups);
  append_words(words, partition.chunks);
  append_words(words, work_order(partition, lag));
  return words;
}

}  // namespace d3
