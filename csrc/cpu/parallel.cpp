// SPDX-License-Identifier: Apache-2.0
#include "cpu/parallel.h"

#include <dlfcn.h>

#include <system_error>
#include <thread>
#include <vector>

namespace d3 {
namespace {

// void GOMP_parallel(void (*fn)(void*), void* data, unsigned num_threads, unsigned flags)
using GompParallel = void (*)(void (*)(void*), void*, unsigned, unsigned);

// Remembered once found only: a first call may come before torch has loaded its runtime.
GompParallel gomp_parallel() {
  static std::atomic<GompParallel> found{nullptr};
  GompParallel parallel = found.load(std::memory_order_relaxed);
  if (parallel == nullptr) {
    parallel = reinterpret_cast<GompParallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    found.store(parallel, std::memory_order_relaxed);
  }
  return parallel;
}

}  // namespace

bool shares_openmp_pool() { return gomp_parallel() != nullptr; }

void run_team(int threads, void (*body)(void*), void* context) {
  if (const GompParallel parallel = gomp_parallel()) {
    parallel(body, context, static_cast<unsigned>(threads), 0);
    return;
  }
  std::vector<std::thread> team;
  for (int i = 1; i < threads; ++i) {
    try {
      team.emplace_back(body, context);
    } catch (const std::system_error&) {
      break;  // no more threads to be had: the ones there are share the work
    }
  }
  body(context);
  for (std::thread& member : team) member.join();
}

}  // namespace d3
