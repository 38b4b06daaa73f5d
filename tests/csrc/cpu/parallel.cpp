// SPDX-License-Identifier: Apache-2.0
//
// csrc/cpu/parallel.h for calls from Python.
#include "cpu/parallel.h"

#include <chrono>
#include <thread>

using namespace d3;

// Two passes over the tasks [first, first + count). times [2 * count]: how often each was called in
// either pass; same [count]: 1 where the second pass had the thread of the first. Each task sleeps
// for `micros`, the owners' first ones `slow` times as long in the second pass.
extern "C" void two_passes(int64_t first, int64_t count, int threads, int micros, int slow,
                           int* times, int* same) {
  TaskOwners owners(first + count);
  const auto owner = std::make_unique<const void*[]>(count);
  const auto wait = [](int m) { std::this_thread::sleep_for(std::chrono::microseconds(m)); };
  parallel_for(count, threads, [&](int64_t i) {
    owners.take(first + i);
    owner[i] = this_thread();
    ++times[i];
    wait(micros);
  });
  const void* const busy = owner[count - 1];
  owners.for_each(first, count, threads, [&](int64_t i) {
    same[i - first] = owner[i - first] == this_thread();
    ++times[count + i - first];
    wait(this_thread() == busy ? slow * micros : micros);
  });
}
