// SPDX-License-Identifier: Apache-2.0
#include <pybind11/stl.h>

#include <limits>
#include <utility>

#include "bindings.h"
#include "check.h"
#include "cuda/launch.h"
#include "cuda/step.h"

namespace py = pybind11;

namespace d3 {
namespace {

template <class T>
void append(std::string& bytes, const std::vector<T>& items) {
  bytes.append(reinterpret_cast<const char*>(items.data()), items.size() * sizeof(T));
}

// Address of a number on the device, 0 where it is among the options, and whether it is a double.
using Scalar = std::pair<Address, bool>;

DeviceScalar on_device(const Scalar& scalar) {
  return {pointer<void>(scalar.first), scalar.second};
}

class CudaPlan {
 public:
  CudaPlan(const Dtypes& types, const Columns& columns, bool joint)
      : stepper_(cuda_stepper(types)), cut_(cut(segments_of(columns, types), joint, cuda_chunk())) {
    if (stepper_ == nullptr) refuse(types);
  }

  // What has to lie on the device: segments, units, chunks and order, one after the other.
  py::bytes table() const {
    std::string bytes;
    append(bytes, cut_.segments);
    append(bytes, cut_.units);
    append(bytes, cut_.chunks);
    append(bytes, cuda_order(cut_));
    return bytes;
  }

  int64_t workspace_bytes() const { return cuda_workspace_bytes(cut_); }

  void step(int device, Address stream, Address table, Address workspace, Address reference_norms,
            Address grads, const Scalar& lr, const Scalar& lower, const Scalar& upper,
            Address grad_scale, Address found_inf, bool verify, const StepOptions& options) const {
    StepOptions known = options;  // a bound on the device is unknown here
    if (lower.first != 0) known.lower = 0;
    if (upper.first != 0) known.upper = std::numeric_limits<double>::infinity();
    check_options(cut_, known);
    CudaStep call;
    call.device = device;
    call.stream = pointer<void>(stream);
    call.table = pointer<void>(table);
    call.workspace = pointer<void>(workspace);
    call.reference_norms = pointer<double>(reference_norms);
    call.grads = pointer<void>(grads);
    call.lr = on_device(lr);
    call.lower = on_device(lower);
    call.upper = on_device(upper);
    call.grad_scale = pointer<float>(grad_scale);
    call.found_inf = pointer<float>(found_inf);
    call.verify = verify;
    call.options = options;
    stepper_(cut_, call);
  }

 private:
  CudaStepper stepper_;
  Cut cut_;
};

}  // namespace

void bind_cuda(py::module_& m) {
  m.def(
      "cuda_write",
      [](int device, Address stream, Address to, const std::vector<int64_t>& words) {
        cuda_write(device, pointer<void>(stream), pointer<void>(to), words);
      },
      py::kw_only(), py::arg("device"), py::arg("stream"), py::arg("to"), py::arg("words"));
  py::class_<CudaPlan>(m, "CudaPlan")
      .def(py::init<const Dtypes&, const Columns&, bool>(), py::kw_only(), py::arg("dtypes"),
           py::arg("columns"), py::arg("joint"))
      .def_property_readonly("table", &CudaPlan::table)
      .def_property_readonly("workspace_bytes", &CudaPlan::workspace_bytes)
      .def("step", &CudaPlan::step, py::kw_only(), py::arg("device"), py::arg("stream"),
           py::arg("table"), py::arg("workspace"), py::arg("reference_norms"), py::arg("grads"),
           py::arg("lr"), py::arg("lower"), py::arg("upper"), py::arg("grad_scale"),
           py::arg("found_inf"), py::arg("verify"), py::arg("options"));
}

}  // namespace d3
