// SPDX-License-Identifier: Apache-2.0
//
// Reads where a torch tensor lies and how, without torch's headers: through the functions that
// torch exports by the DLPack protocol (https://dmlc.github.io/dlpack, C exchange API), or by
// calling the tensor's methods where torch is too old to have them.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <vector>

#include "python/plan.h"

namespace d3 {

struct DlTensor;

// A tensor's storage at this moment. dtype and device have a meaning in comparisons only.
struct TensorView {
  Address data = 0;
  uint64_t dtype = 0, device = 0;
  int64_t dims = 0;
  const int64_t* sizes = nullptr;    // [dims], borrowed until the next read
  const int64_t* strides = nullptr;  // [dims], likewise

  int64_t numel() const;
};

// The same, remembered.
struct TensorLayout {
  Address data = 0;
  uint64_t dtype = 0, device = 0;
  std::vector<int64_t> sizes, strides;

  explicit TensorLayout(const TensorView& view);
  bool same_sizes(const TensorView& view) const;
  // True where elements lie in the same order; the stride of a size of 1 does not count.
  bool same_order(const TensorView& view) const;
  bool operator==(const TensorView& view) const;
};

class TensorReader {
 public:
  // exchange: torch.Tensor.__dlpack_c_exchange_api__, or None.
  explicit TensorReader(const pybind11::object& exchange);

  // False, with no Python error left, where the tensor has no address and strides.
  bool read(PyObject* tensor, TensorView& view);

 private:
  bool call_methods(PyObject* tensor, TensorView& view);

  int (*to_dlpack_)(void*, DlTensor*) = nullptr;
  std::vector<int64_t> numbers_;
};

// The attribute `_version` of a tensor; false with a Python error set.
bool read_version(PyObject* tensor, int64_t& version);

// The result of `tensor.is_neg()`; false with a Python error set.
bool read_negative_bit(PyObject* tensor, bool& negative);

}  // namespace d3
