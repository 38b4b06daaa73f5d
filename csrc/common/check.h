// SPDX-License-Identifier: Apache-2.0
//
// The checks at the boundary. Every error names the argument, its value, and the file and line of
// the check. Python sees std::invalid_argument as ValueError, std::runtime_error as RuntimeError.
//
//   D3_CHECK_ARG("p", p, p == 1 || p == 2, "must be 1 or 2");   // p must be 1 or 2, got 3 [...]
//   D3_CHECK(!untracked, "center = " << center << " needs a reference");
//   D3_CUDA_CHECK(cudaGetLastError());
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

#define D3_FAIL(Error, message)                         \
  do {                                                  \
    std::ostringstream d3_text;                         \
    d3_text << message;                                 \
    d3::fail<Error>(d3_text.str(), __FILE__, __LINE__); \
  } while (false)

#define D3_CHECK(condition, message)                           \
  do {                                                         \
    if (!(condition)) D3_FAIL(std::invalid_argument, message); \
  } while (false)

#define D3_CHECK_ARG(name, value, condition, requirement) \
  D3_CHECK(condition, name << " " << requirement << ", got " << value)

#define D3_CUDA_CHECK(call)                                                                    \
  do {                                                                                         \
    const cudaError_t d3_error = (call);                                                       \
    if (d3_error != cudaSuccess)                                                               \
      D3_FAIL(std::runtime_error, #call << " must succeed, got " << cudaGetErrorName(d3_error) \
                                        << ", " << cudaGetErrorString(d3_error));              \
  } while (false)

namespace d3 {

// Throws an Error that ends with the place of the check, without the build machine's folders.
template <class Error>
[[noreturn]] void fail(const std::string& text, const std::string& file, int line) {
  const size_t root = file.rfind("csrc/");
  const std::string name = root == std::string::npos ? file : file.substr(root);
  throw Error(text + " [" + name + ":" + std::to_string(line) + "]");
}

}  // namespace d3
