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

#include "plan.h"
#include "step_math.h"
#include "stored.h"

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

unsigned atomicAdd(unsigned* at, unsigned value) {
  return __atomic_fetch_add(at, value, __ATOMIC_SEQ_CST);
}

unsigned atomicExch(unsigned* at, unsigned value) {
  return __atomic_exchange_n(at, value, __ATOMIC_SEQ_CST);
}

void __nanosleep(unsigned) { sched_yield(); }
void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
void __syncthreads() { Block::wait(); }

}  // namespace

#define __device__
#define __global__ static
#define __shared__ static thread_local  // a host thread runs one block at a time
#define __launch_bounds__(...)
#include "cuda/persistent.cuh"
#include "cuda/sequence.h"

namespace d3 {
int64_t cuda_chunk() { return kCudaChunk; }
}  // namespace d3

using namespace d3;

// Steps of one group on host memory; dtypes: names of the weights', the momentum's and the
// reference's. Columns are arrays of addresses, null where the group has none; scalars: lr, lower,
// upper, null where they are among the options.
extern "C" int host_steps(const char* const* dtypes, int64_t tensors, void* const* theta,
                          const int64_t* numel, void* const* compensation,
                          void* const* reference, void* const* momentum, double* const* distance,
                          const double* reference_norms, const int64_t* grads, bool joint,
                          int64_t chunk_length, int64_t lag, unsigned host_threads, bool verify, const float* grad_scale,
                          const float* found_inf, const void* const* scalars, const bool* wide,
                          const double* options, char* workspace, int64_t workspace_size,
                          unsigned shuffle) {
  std::vector<Segment> segments(tensors);
  for (int64_t i = 0; i < tensors; ++i) {
    segments[i].theta = theta[i];
    segments[i].numel = numel[i];
    // As in bindings.cpp: null says that the group has no such array, not that a tensor is empty.
    static double nothing = 0;
    const auto storage = [&](void* p) { return numel[i] == 0 ? &nothing : p; };
    segments[i].compensation = compensation ? storage(compensation[i]) : nullptr;
    segments[i].reference = reference ? storage(reference[i]) : nullptr;
    segments[i].momentum = momentum ? storage(momentum[i]) : nullptr;
    segments[i].distance = distance ? distance[i] : nullptr;
  }
  const Cut plan = cut(std::move(segments), joint, chunk_length);
  if (workspace_bytes(plan) > workspace_size) return -1;
  std::vector<char> table;
  const auto append = [&](const auto& items) {
    const char* first = reinterpret_cast<const char*>(items.data());
    table.insert(table.end(), first, first + items.size() * sizeof(items[0]));
  };
  append(plan.segments);
  append(plan.units);
  append(plan.chunks);
  append(order_of(plan, lag));

  CudaStep call;
  call.table = table.data();
  call.workspace = workspace;
  call.reference_norms = reference_norms;
  call.grads = grads;
  call.lr = {scalars[0], wide[0]};
  call.lower = {scalars[1], wide[1]};
  call.upper = {scalars[2], wide[2]};
  call.grad_scale = grad_scale;
  call.found_inf = found_inf;
  call.verify = verify;
  StepOptions& o = call.options;
  o.lr = options[0];
  o.momentum = options[1];
  o.dampening = options[2];
  o.weight_decay = options[3];
  o.nesterov = options[4] != 0;
  o.maximize = options[5] != 0;
  o.distance_weight = options[6];
  o.p = static_cast<int>(options[7]);
  o.center = static_cast<int>(options[8]);
  o.lower = options[9];
  o.upper = options[10];
  o.relative = options[11] != 0;

  std::mt19937 random(shuffle);
  int launches = 0;
  const auto launch = [&](Kernel kernel, unsigned blocks, const DeviceStep& step) {
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
  };
  const Dtypes types = {dtypes[0], dtypes[1], dtypes[2]};
  const bool known = visit_storage(CudaStorages(), types, [&](auto storage) {
    enqueue<decltype(storage)>(plan, call, launch);
  });
  return known ? launches : -2;
}
