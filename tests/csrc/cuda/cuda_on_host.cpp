// SPDX-License-Identifier: Apache-2.0
//
// Runs the CUDA kernels on the host, so that they are tested where there is no GPU: blocks run on
// several host threads at once, in a shuffled order (see host_device.h). It shows what the kernels
// compute, that the order of blocks does not matter and that none waits for ever, however few run
// at a time.
#include <algorithm>
#include <atomic>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "common/dtypes.h"
#include "common/options.h"
#include "common/partition.h"

#include "host_device.h"

#include "cuda/dispatch.cuh"

namespace d3 {
int64_t cuda_chunk() { return kCudaChunk; }
}  // namespace d3

#if !defined(HOST_DTYPES)
#define HOST_DTYPES CudaDTypes
#endif

using namespace d3;

namespace {

// What the launches of a step were.
struct Launches {
  int count = 0;
  unsigned most_blocks = 0;
  bool changes_norm = false, verified = false;  // of the first norm group: the last launch; one before
};

// Runs the blocks of a launch on several host threads, in an order drawn from `random`.
struct HostLauncher {
  unsigned blocks_at_a_time, host_threads;
  std::mt19937& random;
  Launches& launches;

  unsigned resident_blocks(Kernel) const { return blocks_at_a_time; }

  void launch(Kernel kernel, unsigned blocks, const DeviceStep& step) const {
    std::vector<unsigned> order(blocks);
    std::iota(order.begin(), order.end(), 0u);
    std::shuffle(order.begin(), order.end(), random);
    gridDim.x = blocks;
    const double norm = step.memory.states[0].cached_norm;
    std::atomic<unsigned> next{0};
    std::vector<std::thread> workers;
    for (unsigned w = 0; w < host_threads; ++w) {
      workers.emplace_back([&] {
        for (unsigned i = next++; i < blocks; i = next++) {
          blockIdx.x = order[i];
          Block::run(kThreads, [&] { kernel(step); });
        }
      });
    }
    for (std::thread& worker : workers) worker.join();
    ++launches.count;
    launches.verified = launches.verified || launches.changes_norm;
    launches.changes_norm = step.memory.states[0].cached_norm != norm;
    launches.most_blocks = std::max(launches.most_blocks, blocks);
  }
};

// Whether the workspace is as the next launch expects it.
bool is_clean(const Partition& partition, const DeviceMemory& memory) {
  const auto zero = [](const void* p, size_t bytes) {
    const char* c = static_cast<const char*>(p);
    return std::all_of(c, c + bytes, [](char x) { return x == 0; });
  };
  for (size_t i = 0; i < partition.norm_groups.size(); ++i) {
    const GroupState& s = memory.states[i];
    if (s.finished != 0 || s.ready != 0 || s.projected != 0) return false;
  }
  return zero(memory.queue, sizeof(Queue)) &&
         zero(memory.finished_chunks, partition.segments.size() * sizeof(unsigned)) &&
         zero(memory.corrections, (partition.norm_groups.size() + 1) * sizeof(Correction));
}

}  // namespace

extern "C" {

struct HostGroup {
  const char *weight, *momentum_dtype, *reference_dtype;
  int64_t tensors;
  void* const* theta;
  const int64_t* numel;
  // Null: no such column.
  void* const *compensation, *const *reference, *const *momentum, *const *variance;
  float* const* steps;
  double* const* distance;
  const double* reference_norms;
  const int64_t* whole;  // null where the tensors are no shards
  const bool* counts;
  bool joint_norm;
  int64_t chunk_length, lag;
  char* memory;  // zero before the first step
  int64_t memory_size;
};

static Partition partition_of(const HostGroup& group) {
  std::vector<Segment> segments(group.tensors);
  for (int64_t i = 0; i < group.tensors; ++i) {
    segments[i].theta = group.theta[i];
    segments[i].numel = segments[i].whole = group.numel[i];
    if (group.whole != nullptr) segments[i].whole = group.whole[i];
    if (group.counts != nullptr) segments[i].counts = group.counts[i];
    // As in python/plan.cpp: null says that the group has no such array, not that a tensor is empty.
    static double nothing = 0;
    const auto storage = [&](void* const* column) {
      return column == nullptr ? nullptr : group.numel[i] == 0 ? &nothing : column[i];
    };
    segments[i].compensation = storage(group.compensation);
    segments[i].reference = storage(group.reference);
    segments[i].momentum = storage(group.momentum);
    segments[i].variance = storage(group.variance);
    segments[i].steps = group.steps ? group.steps[i] : nullptr;
    segments[i].distance = group.distance ? group.distance[i] : nullptr;
  }
  return make_partition(std::move(segments), group.joint_norm, group.chunk_length);
}

struct HostStep {
  const int64_t* grads;  // pairs (address, first_step)
  bool verify;
  unsigned blocks, host_threads, shuffle;  // blocks: of a launch that the device holds at a time
  // Numbers, or addresses of one number on the device.
  double lr, lower, upper;
  const void *lr_at, *lower_at, *upper_at;
  bool lr_is_double, lower_is_double, upper_is_double;
  const float *grad_scale, *found_inf;
  double momentum, dampening, weight_decay;
  double beta1, beta2, eps;
  bool nesterov, maximize, adamw, decoupled_push;
  double distance_weight;
  int p, center;
  bool relative;
  int phase;
  Sums* sums;
  const Sums* totals;
  const double* held;
};

// What a step did.
struct HostReport {
  int launches;
  unsigned most_blocks;
  int64_t wide_accesses;
  bool verified;  // a launch before the last one changed the first cached norm
};

// One step of a group in host memory, which is device memory here. Returns 0 where it was taken.
int64_t host_memory_bytes(const HostGroup& group) {
  return device_memory_bytes(partition_of(group));
}

int host_step(const HostGroup& group, const HostStep& given, HostReport& report) {
  const Partition partition = partition_of(group);
  if (device_memory_bytes(partition) > group.memory_size) return -1;
  const DeviceMemory memory = device_memory(partition, group.memory);
  const std::vector<int64_t> tables = table_words(partition, group.lag);
  std::memcpy(group.memory, tables.data(), tables.size() * sizeof(int64_t));

  CudaStep call;
  call.grads.resize(group.tensors);
  const size_t bytes = group.tensors * sizeof(GradEntry);
  std::memcpy(static_cast<void*>(call.grads.data()), given.grads, bytes);
  if (call.grads.size() > kGradArguments) {
    std::memcpy(static_cast<void*>(memory.grads), given.grads, bytes);
  }
  call.memory = group.memory;
  call.reference_norms = group.reference_norms;
  call.verify = given.verify;
  call.phase = static_cast<Phase>(given.phase);
  call.sums = given.sums;
  call.totals = given.totals;
  call.held = given.held;
  if (given.grad_scale != nullptr) call.grad_scale.device = given.grad_scale;
  if (given.found_inf != nullptr) call.found_inf.device = given.found_inf;
  StepOptions& o = call.options;
  o.lr = {given.lr, given.lr_at, given.lr_is_double};
  o.lower = {given.lower, given.lower_at, given.lower_is_double};
  o.upper = {given.upper, given.upper_at, given.upper_is_double};
  o.momentum = given.momentum;
  o.dampening = given.dampening;
  o.weight_decay = given.weight_decay;
  o.nesterov = given.nesterov;
  o.maximize = given.maximize;
  o.adamw = given.adamw;
  o.beta1 = given.beta1;
  o.beta2 = given.beta2;
  o.eps = given.eps;
  o.decoupled_push = given.decoupled_push;
  o.distance_weight = given.distance_weight;
  o.p = given.p;
  o.center = static_cast<Center>(given.center);
  o.relative = given.relative;

  std::mt19937 random(given.shuffle);
  Launches launches;
  wide_accesses = 0;
  const HostLauncher launcher = {given.blocks, given.host_threads, random, launches};
  const DTypeNames dtypes = {group.weight, group.momentum_dtype, group.reference_dtype};
  const bool known = visit_dtypes(HOST_DTYPES(), dtypes, [&](auto triple) {
    enqueue<decltype(triple)>(partition, call, launcher);
  });
  if (!known) return -2;
  report = {launches.count, launches.most_blocks, wide_accesses, launches.verified};
  return is_clean(partition, memory) ? 0 : -3;
}

// The chunks that a block takes off the list of corrections, in turn, the list being `groups`;
// chunk_counts: those of each norm group. Ends with -1.
void host_corrections(int64_t norm_groups, const int64_t* chunk_counts, int64_t listed,
                      const int64_t* groups, int64_t* taken) {
  std::vector<Segment> segments(norm_groups);
  for (int64_t i = 0; i < norm_groups; ++i) segments[i].numel = chunk_counts[i];
  const Partition partition = make_partition(std::move(segments), false, 1);
  std::vector<int64_t> words(device_memory_bytes(partition) / 8);
  DeviceStep step = {};
  step.memory = device_memory(partition, words.data());
  std::copy(partition.norm_groups.begin(), partition.norm_groups.end(), step.memory.norm_groups);
  for (int64_t i = 0; i < listed; ++i) request_correction(step, groups[i], 1.0f, 2.0f);
  do {
    const Correction* entry = nullptr;
    *taken = take_correction(step, entry);
  } while (*taken++ >= 0);
}

// quotients[i] <- numbers[i] / divisor, as gradients are divided.
void host_divide(int64_t n, const float* numbers, float divisor, float* quotients) {
  for (int64_t i = 0; i < n; ++i) quotients[i] = divide(numbers[i], divisor, 1 / divisor);
}

}  // extern "C"
