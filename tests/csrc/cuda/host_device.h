// SPDX-License-Identifier: Apache-2.0
//
// What csrc/cuda asks of a GPU, on the host: a block's threads are coroutines that __syncthreads()
// switches between. A host thread runs one block at a time. Atomics are relaxed, as on a GPU, and
// only a fence makes what one block wrote visible to another. A sanitizer is told of the coroutines:
// ThreadSanitizer takes each for a thread and __syncthreads() for a barrier of theirs.
#pragma once

#include <ucontext.h>

#include <sched.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

struct Index {
  unsigned x;
};
static thread_local Index threadIdx, blockIdx;
static Index gridDim;

struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

namespace {

// The harness itself is none of a sanitizer's business.
#define D3_UNWATCHED __attribute__((no_sanitize("thread"), noinline))

constexpr size_t kStack = 64 * 1024;
constexpr unsigned kMostThreads = 256;

// A thread of a block, or the host thread that runs the block.
struct Coroutine {
  ucontext_t context;
  void* fiber = nullptr;
  bool owns_fiber = false;
  const void* stack = nullptr;
  size_t stack_size = 0;
  void* fake_stack = nullptr;

#if defined(__SANITIZE_THREAD__)
  ~Coroutine() {
    if (owns_fiber) __tsan_destroy_fiber(fiber);
  }
#endif
};

// One block's threads. `wait` hands over to the next one; when all have been there, all go on.
class Block {
 public:
  template <class Body>
  static void run(unsigned threads, const Body& body) {
    body_ = [](void* p) { (*static_cast<const Body*>(p))(); };
    argument_ = const_cast<Body*>(&body);
    release(&begin_);
    run_rounds(threads);
    acquire(&end_);
  }

  D3_UNWATCHED static void wait() {
    release(&barrier_);
    const unsigned mine = threadIdx.x;
    change(threads_[mine], main_);
    threadIdx.x = mine;
    acquire(&barrier_);
  }

 private:
  D3_UNWATCHED static void run_rounds(unsigned threads) {
    static thread_local std::vector<char> stacks(kMostThreads * kStack);
    for (unsigned t = 0; t < threads; ++t) prepare(threads_[t], stacks.data() + t * kStack);
#if defined(__SANITIZE_THREAD__)
    main_.fiber = __tsan_get_current_fiber();
#endif
    for (unsigned t = 0; t < threads; ++t) alive_[t] = true;
    bool any = true;
    while (any) {  // one round: every live thread runs to its next barrier or its end
      any = false;
      for (unsigned t = 0; t < threads; ++t) {
        if (!alive_[t]) continue;
        any = true;
        threadIdx.x = t;
        change(main_, threads_[t]);
      }
    }
  }

  D3_UNWATCHED static void prepare(Coroutine& thread, char* stack) {
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = stack;
    thread.context.uc_stack.ss_size = kStack;
    thread.context.uc_link = nullptr;
    thread.stack = stack;
    thread.stack_size = kStack;
    makecontext(&thread.context, &Block::enter, 0);
#if defined(__SANITIZE_THREAD__)
    if (thread.fiber == nullptr) thread.fiber = __tsan_create_fiber(0);
    thread.owns_fiber = true;
#endif
  }

  D3_UNWATCHED static void enter() {
    arrive(threads_[threadIdx.x]);
    acquire(&begin_);
    body_(argument_);
    release(&end_);
    const unsigned mine = threadIdx.x;
    alive_[mine] = false;
    change(threads_[mine], main_);
  }

  D3_UNWATCHED static void change(Coroutine& from, Coroutine& to) {
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(to.fiber, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&from.fake_stack, to.stack, to.stack_size);
#endif
    swapcontext(&from.context, &to.context);
    arrive(from);
  }

  D3_UNWATCHED static void arrive([[maybe_unused]] Coroutine& here) {
#if defined(__SANITIZE_ADDRESS__)
    const void* stack;
    size_t size;
    __sanitizer_finish_switch_fiber(here.fake_stack, &stack, &size);
    if (main_.stack == nullptr) main_.stack = stack, main_.stack_size = size;
#endif
  }

  static void release([[maybe_unused]] char* at) {
#if defined(__SANITIZE_THREAD__)
    __tsan_release(at);
#endif
  }
  static void acquire([[maybe_unused]] char* at) {
#if defined(__SANITIZE_THREAD__)
    __tsan_acquire(at);
#endif
  }

  static inline thread_local Coroutine main_, threads_[kMostThreads];
  static inline thread_local bool alive_[kMostThreads];
  static inline thread_local char begin_, barrier_, end_;
  static inline thread_local void (*body_)(void*);
  static inline thread_local void* argument_;
};

std::atomic<int64_t> wide_accesses{0};  // those with a cache hint, of 8 or 16 bytes at a time

template <class T>
void count_access() {
  if (std::is_same_v<T, uint2> || std::is_same_v<T, uint4>) {
    wide_accesses.fetch_add(1, std::memory_order_relaxed);
  }
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
  return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}

unsigned atomicExch(unsigned* at, unsigned value) {
  return __atomic_exchange_n(at, value, __ATOMIC_RELAXED);
}

void atomicMax(unsigned* at, unsigned value) {
  unsigned now = __ldcv(at);
  while (now < value && !__atomic_compare_exchange_n(at, &now, value, false, __ATOMIC_RELAXED,
                                                     __ATOMIC_RELAXED)) {
  }
}

// A sanitizer does not know fences; it knows that writers of one word come one after the other.
void __threadfence() {
  static unsigned fence = 0;
  __atomic_fetch_add(&fence, 1u, __ATOMIC_SEQ_CST);
}

void __nanosleep(unsigned) { sched_yield(); }
void __syncthreads() { Block::wait(); }

}  // namespace

#define __device__
#define __global__ static
#define __shared__ static thread_local  // a host thread runs one block at a time
#define __launch_bounds__(...)
