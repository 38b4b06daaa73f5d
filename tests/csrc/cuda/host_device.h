// SPDX-License-Identifier: Apache-2.0
//
// What csrc/cuda asks of a GPU, on the host: a block's threads are coroutines that __syncthreads()
// switches between. A host thread runs one block at a time. It shows nothing about a GPU's memory
// ordering or speed.
#pragma once

#include <ucontext.h>

#include <sched.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

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

std::atomic<int64_t> wide_accesses{0};  // those with a cache hint, of 8 or 16 bytes at a time

template <class T>
void count_access() {
  if (std::is_same_v<T, uint2> || std::is_same_v<T, uint4>) ++wide_accesses;
}

template <class T>
T __ldcg(const T* p) {
  count_access<T>();
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
  count_access<T>();
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
