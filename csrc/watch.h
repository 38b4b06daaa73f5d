// SPDX-License-Identifier: Apache-2.0
//
// Whether the tensors of a param group are still what a plan was made for: the question that every
// step asks of every tensor, and whose price is what small steps cost. It is put to Python's
// objects without torch's headers: through the functions that torch exports by the DLPack protocol
// (https://dmlc.github.io/dlpack, C exchange API), or by calling the tensors' methods where torch
// is too old to have them.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "bindings.h"

namespace d3 {

struct DlTensor;

// What a tensor is at this moment. dtype and device mean something in comparisons only.
struct TensorView {
  Address data = 0;
  uint64_t dtype = 0, device = 0;
  int64_t dims = 0;
  const int64_t* sizes = nullptr;    // [dims], borrowed until the next read
  const int64_t* strides = nullptr;  // [dims], likewise
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

// The place of one tensor, remembered.
struct Place {
  Address data = 0;
  uint64_t dtype = 0, device = 0;
  std::vector<int64_t> sizes, strides;

  void keep(const TensorView& view);
  bool same_sizes(const TensorView& view) const;
  // Whether elements lie in the same order; a size of 1 has no stride.
  bool same_strides(const TensorView& view) const;
  bool is(const TensorView& view) const;
};

// Keeps no reference to what it watches, lest a cycle through hooks escape Python's collector:
// whoever makes one keeps the parameters and the tensors of their states alive.
class Watch {
 public:
  // params: of the group; those without a gradient take no part. state: the optimizer's. columns:
  // names in a parameter's state that the plan holds addresses of. Raises what the tensors raise.
  Watch(const pybind11::object& params, const pybind11::dict& state,
        const std::vector<std::string>& columns, const pybind11::object& exchange);

  // The gradients of the parameters taking part, or None where anything is not what it was: another
  // parameter, gradients come or gone, a tensor of the state replaced, something that lies
  // elsewhere or is laid out otherwise, a reference edited in place, a gradient of another shape or
  // device.
  pybind11::object look(const pybind11::object& params, const pybind11::dict& state);

  // Of the gradients last looked at, or None: one has another dtype or order than its parameter.
  pybind11::object addresses() const;

  // Whether a version counter of a parameter, when last looked at, was not what `settle` saw.
  bool edited() const { return edited_; }

  // Takes the parameters' versions for those of an untouched state.
  void settle();

  const std::vector<int64_t>& versions() const { return versions_; }

 private:
  struct Held {
    PyObject* tensor;
    Place place;
    int64_t version;  // of a reference, whose norm the plan keeps; otherwise -1
  };
  struct Member {
    PyObject* param;
    Py_ssize_t at;  // where the optimizer's state was found to hold this parameter's
    Place place;
    std::vector<Held> held;  // by column
  };

  bool holds(Member& member, PyObject* state);

  TensorReader reader_;
  std::vector<pybind11::str> columns_;
  std::vector<PyObject*> params_;  // all of the group
  std::vector<bool> taking_part_;  // by parameter
  std::vector<Member> members_;
  std::vector<int64_t> versions_;  // by member; empty before `settle`
  Addresses addresses_;
  bool direct_ = false, edited_ = true;
};

void bind_watch(pybind11::module_& m);

}  // namespace d3
