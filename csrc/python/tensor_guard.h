// SPDX-License-Identifier: Apache-2.0
//
// Validates a plan before each step: are the tensors of the param group still those the plan was
// made for? The cost of that check dominates small steps.
#pragma once

#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "python/tensor_reader.h"

namespace d3 {

// Keeps no reference to the tensors, lest a cycle through hooks escape Python's collector: its
// owner keeps the parameters and the tensors of their states alive.
class TensorGuard {
 public:
  // params: of the group; those without a gradient take no part. state: the optimizer's. columns:
  // names in a parameter's state that the plan holds addresses of. Raises what the tensors raise.
  TensorGuard(const pybind11::object& params, const pybind11::dict& state,
              const std::vector<std::string>& columns, const pybind11::object& exchange);

  // False where the plan is outdated: another parameter, gradients come or gone, a tensor of the
  // state replaced, moved or in another layout, a reference edited in place, a gradient of another
  // shape or device. True leaves the answers below.
  bool matches(const pybind11::object& params, const pybind11::dict& state);

  // True where the kernels can read the gradients where they lie: each has the dtype and order of
  // its parameter, memory, and no negative bit.
  bool readable() const { return readable_; }
  const Addresses& gradients() const { return gradients_; }

  // True where a parameter's version counter differs from that of `record_versions`.
  bool edited() const { return edited_; }

  // Takes the parameters' present versions for those of an unedited state.
  void record_versions();
  const std::vector<int64_t>& versions() const { return versions_; }

  // The parameters taking part.
  pybind11::list params() const;

 private:
  struct StateTensor {
    PyObject* tensor;
    TensorLayout layout;
    int64_t version;  // of a reference, whose norm the plan keeps; otherwise -1
  };
  struct Member {
    PyObject* param;
    Py_ssize_t at;  // position in the state where this parameter's entry was last found
    TensorLayout layout;
    std::vector<StateTensor> state;  // by column
  };

  bool member_matches(Member& member, PyObject* state);
  bool gradient_matches(const Member& member, PyObject* grad, Address& address);

  TensorReader reader_;
  std::vector<pybind11::str> columns_;
  std::vector<PyObject*> params_;  // all of the group
  std::vector<bool> taking_part_;  // by parameter
  std::vector<Member> members_;
  std::vector<int64_t> versions_;  // by member; empty before `record_versions`
  Addresses gradients_;
  bool readable_ = false, edited_ = true;
};

// Adds TensorGuard and step_groups.
void bind_guard(pybind11::module_& m);

}  // namespace d3
