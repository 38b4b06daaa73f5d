// SPDX-License-Identifier: Apache-2.0
//
// Threads for the CPU backend. Work runs in the OpenMP pool that torch has already started: a
// second runtime's threads would spin against torch's on the same cores. The pool is found at run
// time through the symbol that every OpenMP runtime exports to GCC code (GOMP_parallel), so nothing
// is linked; where there is none, plain threads are started for the call.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

namespace d3 {

// Runs body(context) once on each of up to `threads` threads and waits for all. The team may turn
// out smaller than asked for, so the body has to share work through the context.
void run_team(int threads, void (*body)(void*), void* context);

// Whether a running OpenMP runtime was found.
bool shares_openmp_pool();

// Calls task(i) for i in [0, count), each once, in any order and on any thread. Tasks are taken one
// at a time: a core that is busy with something else just takes fewer. task must not throw.
template <class Task>
void parallel_for(int64_t count, int threads, const Task& task) {
  if (threads <= 1 || count <= 1) {
    for (int64_t i = 0; i < count; ++i) task(i);
    return;
  }
  struct Context {
    const Task& task;
    int64_t count;
    std::atomic<int64_t> next{0};
  } context{task, count};
  const auto body = [](void* pointer) {
    Context& shared = *static_cast<Context*>(pointer);
    for (;;) {
      const int64_t i = shared.next.fetch_add(1, std::memory_order_relaxed);
      if (i >= shared.count) return;
      shared.task(i);
    }
  };
  run_team(count < threads ? static_cast<int>(count) : threads, body, &context);
}

// The thread that calls it: a value that no other running thread has.
inline const void* this_thread() {
  static thread_local const char place = 0;
  return &place;
}

// Which thread took which task of a `parallel_for`, so that a second pass over the same data can be
// divided alike: a core then finds in its own cache what it has just written.
class TaskOwners {
 public:
  explicit TaskOwners(int64_t count) : owners_(new std::atomic<const void*>[count]) {}

  void take(int64_t i) { owners_[i].store(this_thread(), std::memory_order_relaxed); }

  // Calls task(i) for i in [first, first + count), each once. All of them were taken. Every thread
  // begins with its own tasks, the last ones first, and goes on with what other threads have left.
  template <class Task>
  void for_each(int64_t first, int64_t count, int threads, const Task& task) {
    const auto claim = [this](int64_t i, const void* owner) {
      return owners_[i].compare_exchange_strong(owner, nullptr, std::memory_order_relaxed);
    };
    parallel_for(threads, threads, [&](int64_t) {
      const void* const self = this_thread();
      for (int64_t i = first + count; i-- > first;) {
        if (claim(i, self)) task(i);
      }
      for (int64_t i = first; i < first + count; ++i) {
        const void* const owner = owners_[i].load(std::memory_order_relaxed);
        if (owner != nullptr && claim(i, owner)) task(i);
      }
    });
  }

 private:
  std::unique_ptr<std::atomic<const void*>[]> owners_;  // null once a second pass took the task
};

}  // namespace d3
