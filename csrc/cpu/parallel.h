// SPDX-License-Identifier: Apache-2.0
//
// Threads for the CPU backend. Work runs in the OpenMP pool that torch has already started: a
// second runtime's threads would spin against torch's on the same cores. The pool is found at run
// time through the symbol that every OpenMP runtime exports to GCC code (GOMP_parallel), so nothing
// is linked; where there is none, plain threads are started for the call.
#pragma once

#include <atomic>
#include <cstdint>

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

}  // namespace d3
