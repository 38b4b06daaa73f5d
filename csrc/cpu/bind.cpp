// SPDX-License-Identifier: Apache-2.0
#include "cpu/bind.h"

#include <pybind11/stl.h>

#include <memory>
#include <utility>

#include "common/check.h"
#include "cpu/launch.h"
#include "python/plan.h"

namespace py = pybind11;

namespace d3 {
namespace {

class CpuPlan : public Plan {
 public:
  CpuPlan(const DTypeNames& dtypes, const Columns& columns, std::vector<double> reference_norms,
          bool joint_norm)
      : Plan(dtypes, columns, joint_norm, kCpuChunk),
        launch_(cpu_launch(dtypes)),
        reference_norms_(std::move(reference_norms)) {
    if (launch_ == nullptr) refuse_dtypes(dtypes);
    D3_CHECK_ARG("reference_norms", reference_norms_.size() << " entries",
                 !partition_.tracked() || reference_norms_.size() == columns.theta.size(),
                 "must have " << columns.theta.size() << " entries");
  }

  bool step(const StepRequest& request) override {
    check(request);
    D3_CHECK_ARG("held", request.held, request.held == 0, "must be 0: the host reads the counts");
    D3_CHECK_ARG("executor", request.executor, request.executor >= 1, "must be >= 1 thread");
    if (request.found_inf.value != 0) return false;
    const size_t n = request.grads.size();
    std::vector<void*> grads(n);
    const std::unique_ptr<bool[]> first_step(new bool[n]);
    for (size_t i = 0; i < n; ++i) {
      grads[i] = pointer<void>(request.grads[i]);
      first_step[i] = is_first_step(request, i);
    }
    CpuStep step;
    step.partition = &partition_;
    step.reference_norms = reference_norms_.data();
    step.grads = grads.data();
    step.first_step = first_step.get();
    step.verify = request.verify;
    step.threads = static_cast<int>(request.executor);
    step.grad_scale = request.grad_scale.value;
    step.options = request.options;
    step.phase = request.phase;
    step.sums = pointer<Sums>(request.sums);
    step.totals = pointer<const Sums>(request.totals);
    const py::gil_scoped_release release;
    return launch_(step);
  }

 private:
  CpuLaunch launch_;
  std::vector<double> reference_norms_;
};

}  // namespace

void bind_cpu(py::module_& m) {
  py::class_<CpuPlan, Plan>(m, "CpuPlan")
      .def(py::init<const DTypeNames&, const Columns&, std::vector<double>, bool>(), py::kw_only(),
           py::arg("dtypes"), py::arg("columns"), py::arg("reference_norms"),
           py::arg("joint_norm"));
}

}  // namespace d3
