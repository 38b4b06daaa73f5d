// SPDX-License-Identifier: Apache-2.0
//
// Runs the CUDA kernels on the host, so that they are tested where there is no GPU: a block's
// threads are coroutines that __syncthreads() switches between, blocks run on several host threads at
// once, in a shuffled order. It shows what the kernels compute, that the order of blocks does not
// matter and that none waits for ever, however few run at a time; it shows nothing about a GPU's
// memory ordering or speed.
#include <ucontext.h>

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

#include "common/dtypes.h"
#include "common/options.h"
#include "common/partition.h"

struct Index {
  unsigned x;
};
static thread_local Index threadIdx, blockIdx;
static Index gridDim;

struct uint2 {
  unsigned x, y;
};
struct uint4 {
  unsigned x, y, z, w;
};

namespace {

constexpr size_t kStack = 64 * 1024;

// One block's threads. `wait` hands over to the next one; when all have been there, all go on.
class Block {
 public:
  template <class Body>
  static void run(unsigned threads, const Body& body) {
    static thread_local std::vector<char> stacks;
    stacks.resize(threads * kStack);
    contexts_.assign(threads, {});
    alive_.assign(threads, true);
    body_ = [](void* p) { (*static_cast<const Body*>(p))(); };
    argument_ = const_cast<Body*>(&body);
    for (unsigned t = 0; t < threads; ++t) {
      getcontext(&contexts_[t]);
      contexts_[t].uc_stack.ss_sp = stacks.data() + t * kStack;
      contexts_[t].uc_stack.ss_size = kStack;
      contexts_[t].uc_link = &main_;
      makecontext(&contexts_[t], &Block::enter, 0);
    }
    bool any = true;
    while (any) {  // one round: every live thread runs to its next barrier or its end
      any = false;
      for (unsigned t = 0; t < threads; ++t) {
        if (!alive_[t]) continue;
        any = true;
        threadIdx.x = t;
        swapcontext(&main_, &contexts_[t]);
      }
    }
  }

  static void wait() { swapcontext(&contexts_[threadIdx.x], &main_); }

 private:
  static void enter() {
    body_(argument_);
    alive_[threadIdx.x] = false;
  }

  static inline thread_local ucontext_t main_;
  static inline thread_local std::vector<ucontext_t> contexts_;
  static inline thread_local std::vector<bool> alive_;
  static inline thread_local void (*body_)(void*);
  static inline thread_local void* argument_;
};

template <class T>
T __ldcg(const T* p) {
  T value;
  std::memcpy(&value, p, sizeof(T));  // uint4 of floats: not what the type system expects there
  return value;
}

template <class T>
T __ldcs(const T* p) {
  return __ldcg(p);
}

template <class T>
void __stcs(T* p, const T& value) {
  std::memcpy(p, &value, sizeof(T));
}

unsigned __ldcv(const unsigned* p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }

unsigned atomicAdd(unsigned* at, unsigned value) {
  return __atomic_fetch_add(at, value, __ATOMIC_SEQ_CST);
}

unsigned atomicExch(unsigned* at, unsigned value) {
  return __atomic_exchange_n(at, value, __ATOMIC_SEQ_CST);
}

void atomicMax(unsigned* at, unsigned value) {
  unsigned now = __ldcv(at);
  while (now < value && !__atomic_compare_exchange_n(at, &now, value, false, __ATOMIC_SEQ_CST,
                                                     __ATOMIC_SEQ_CST)) {
  }
}

void __nanosleep(unsigned) { sched_yield(); }
void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
void __syncthreads() { Block::wait(); }

}  // namespace

#define __device__
#define __global__ static
#define __shared__ static thread_local  // a host thread runs one block at a time
#define __launch_bounds__(...)
#include "cuda/dispatch.cuh"

namespace d3 {
int64_t cuda_chunk() { return kCudaChunk; }
}  // namespace d3

using namespace d3;

namespace {

// Runs the blocks of a launch on several host threads, in an order drawn from `random`.
struct HostLauncher {
  unsigned blocks_at_a_time, host_threads;
  std::mt19937& random;
  int& launches;

  unsigned resident_blocks(Kernel) const { return blocks_at_a_time; }

  void launch(Kernel kernel, unsigned blocks, const DeviceStep& step) const {
    std::vector<unsigned> order(blocks);
    std::iota(order.begin(), order.end(), 0u);
    std::shuffle(order.begin(), order.end(), random);
    gridDim.x = blocks;
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
    ++launches;
  }
};

}  // namespace

// One step of a group in host memory, which is device memory here. Returns the number of launches.
extern "C" {

struct HostGroup {
  const char *weight, *momentum_dtype, *reference_dtype;
  int64_t tensors;
  void* const* theta;
  const int64_t* numel;
  void* const *compensation, *const *reference, *const *momentum;  // null: no such column
  double* const* distance;
  const double* reference_norms;
  bool joint_norm;
  int64_t chunk_length, lag;
  char* memory;  // zero before the first step
  int64_t memory_size;
};

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
  bool nesterov, maximize;
  double distance_weight;
  int p, center;
  bool relative;
};

int host_step(const HostGroup& group, const HostStep& given) {
  std::vector<Segment> segments(group.tensors);
  for (int64_t i = 0; i < group.tensors; ++i) {
    segments[i].theta = group.theta[i];
    segments[i].numel = group.numel[i];
    // As in python/plan.cpp: null says that the group has no such array, not that a tensor is empty.
    static double nothing = 0;
    const auto storage = [&](void* const* column) {
      return column == nullptr ? nullptr : group.numel[i] == 0 ? &nothing : column[i];
    };
    segments[i].compensation = storage(group.compensation);
    segments[i].reference = storage(group.reference);
    segments[i].momentum = storage(group.momentum);
    segments[i].distance = group.distance ? group.distance[i] : nullptr;
  }
  const Partition partition =
      make_partition(std::move(segments), group.joint_norm, group.chunk_length);
  if (device_memory_bytes(partition) > group.memory_size) return -1;
  const DeviceMemory memory = device_memory(partition, group.memory);
  const std::vector<int64_t> tables = table_words(partition, group.lag);
  std::memcpy(group.memory, tables.data(), tables.size() * sizeof(int64_t));
  std::memcpy(memory.grads, given.grads, group.tensors * sizeof(GradEntry));

  CudaStep call;
  call.memory = group.memory;
  call.reference_norms = group.reference_norms;
  call.verify = given.verify;
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
  o.distance_weight = given.distance_weight;
  o.p = given.p;
  o.center = static_cast<Center>(given.center);
  o.relative = given.relative;

  std::mt19937 random(given.shuffle);
  int launches = 0;
  const HostLauncher launcher = {given.blocks, given.host_threads, random, launches};
  const DTypeNames dtypes = {group.weight, group.momentum_dtype, group.reference_dtype};
  const bool known = visit_dtypes(CudaDTypes(), dtypes, [&](auto triple) {
    enqueue<decltype(triple)>(partition, call, launcher);
  });
  return known ? launches : -2;
}

}  // extern "C"
