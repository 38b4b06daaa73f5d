// SPDX-License-Identifier: Apache-2.0
//
// Chooses the SIMD level once, at first use. D3_HAVE_V3 and D3_HAVE_V4 say which were compiled.
#include <cstdlib>

#include "common/check.h"
#include "cpu/kernels.h"

namespace d3 {

const AllKernels& kernels_baseline();
#if defined(D3_HAVE_V3)
const AllKernels& kernels_v3();
#endif
#if defined(D3_HAVE_V4)
const AllKernels& kernels_v4();
#endif

namespace {

struct Level {
  std::string name;
  bool supported;
  const AllKernels* kernels;
};

std::vector<Level> levels() {
  std::vector<Level> all = {{"baseline", true, &kernels_baseline()}};
#if defined(D3_HAVE_V3)
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                  __builtin_cpu_supports("bmi2");
  all.push_back({"x86-64-v3", v3, &kernels_v3()});
#endif
#if defined(D3_HAVE_V4)
  const bool v4 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl");
  all.push_back({"x86-64-v4", v4, &kernels_v4()});
#endif
  return all;
}

Level choose() {
  Level best;
  const char* asked = std::getenv("D3FAST_SIMD");
  for (const Level& level : levels()) {
    if (asked != nullptr && level.name == asked) {
      D3_CHECK_ARG("D3FAST_SIMD", asked, level.supported, "must be a level of this CPU");
      return level;
    }
    if (level.supported) best = level;
  }
  D3_CHECK_ARG("D3FAST_SIMD", asked, asked == nullptr || *asked == '\0',
               "must be a level compiled in");
  return best;
}

const Level& chosen() {
  static const Level level = choose();
  return level;
}

}  // namespace

const AllKernels& kernels() { return *chosen().kernels; }

std::vector<std::string> simd_levels() {
  std::vector<std::string> names;
  for (const Level& level : levels()) names.push_back(level.name);
  return names;
}

std::string simd_level() { return chosen().name; }

}  // namespace d3
