// SPDX-License-Identifier: Apache-2.0
#include "cuda/bind.h"

#include <pybind11/stl.h>

#include <utility>
#include <vector>

#include "common/check.h"
#include "cuda/launch.h"
#include "cuda/memory.h"
#include "python/plan.h"

namespace py = pybind11;

namespace d3 {
namespace {

class CudaPlan : public Plan {
 public:
  CudaPlan(const DTypeNames& dtypes, const Columns& columns, bool joint_norm)
      : Plan(dtypes, columns, joint_norm, cuda_chunk()),
        dtypes_(dtypes),
        launch_(cuda_launch(dtypes)) {
    if (launch_ == nullptr) refuse_dtypes(dtypes);
  }

  int64_t memory_bytes() const { return device_memory_bytes(partition_); }

  void attach(int device, Address stream, Address memory, Address reference_norms, int64_t lag) {
    D3_CHECK_ARG("lag", lag, lag >= 0, "must be >= 0");
    D3_CHECK_ARG("reference_norms", reference_norms, !partition_.tracked() || reference_norms != 0,
                 "must be an address");
    device_ = device;
    reference_norms_ = pointer<double>(reference_norms);
    cuda_write(device, pointer<void>(stream), pointer<void>(memory),
               table_words(partition_, lag > 0 ? lag : cuda_resident_blocks(dtypes_, device)));
    memory_ = pointer<void>(memory);
  }

  bool step(const StepRequest& request) override {
    check(request);
    D3_CHECK_ARG("phase", static_cast<int>(request.phase), request.phase != Phase::correct,
                 "must not be correct: the projection corrects");
    D3_CHECK(memory_ != nullptr, "attach() must come before step()");
    check_on_device("grad_scale", request.grad_scale, 1);
    check_on_device("found_inf", request.found_inf, 0);
    void* const stream = pointer<void>(request.executor);
    CudaStep call;
    call.device = device_;
    call.stream = stream;
    call.memory = memory_;
    call.reference_norms = reference_norms_;
    call.verify = request.verify;
    call.grad_scale = request.grad_scale;
    call.found_inf = request.found_inf;
    call.phase = request.phase;
    call.sums = pointer<Sums>(request.sums);
    call.totals = pointer<const Sums>(request.totals);
    call.held = pointer<const double>(request.held);
    call.options = request.options;
    call.grads = grads_of(request);
    if (call.grads.size() > kGradArguments) write_grads(stream, call.grads);
    launch_(partition_, call);
    return false;
  }

 private:
  // The kernels read these as float in device memory; without, they have the value `absent`.
  static void check_on_device(const char* name, const Scalar& scalar, double absent) {
    D3_CHECK_ARG(name, scalar.value, scalar.device != nullptr || scalar.value == absent,
                 "must be on the device or " << absent);
    D3_CHECK_ARG(name, "float64", !scalar.is_double, "must be float32");
  }

  std::vector<GradEntry> grads_of(const StepRequest& request) const {
    std::vector<GradEntry> entries(request.grads.size());
    for (size_t i = 0; i < entries.size(); ++i) {
      entries[i] = {pointer<void>(request.grads[i]), is_first_step(request, i)};
    }
    return entries;
  }

  // Writes the gradients' table where it differs from the one on the device. Every replay of a
  // graph writes that graph's own table, so after a capture the present one is never known.
  void write_grads(void* stream, const std::vector<GradEntry>& entries) {
    std::vector<int64_t> words;
    append_words(words, entries);
    captured_ = captured_ || cuda_is_capturing(device_, stream);
    if (!captured_ && words == written_ && stream == written_on_) return;
    cuda_write(device_, stream, device_memory(partition_, memory_).grads, words);
    written_ = std::move(words);
    written_on_ = stream;
  }

  DTypeNames dtypes_;
  CudaLaunch launch_;
  int device_ = 0;
  void* memory_ = nullptr;
  const double* reference_norms_ = nullptr;
  std::vector<int64_t> written_;  // the gradients' table on the device
  void* written_on_ = nullptr;    // the stream that wrote it
  bool captured_ = false;
};

}  // namespace

void bind_cuda(py::module_& m) {
  m.def("cuda_obstacle", &cuda_obstacle, py::kw_only(), py::arg("device"), py::arg("dtypes"),
        "Why the device cannot run the kernels for these dtypes; empty where it can.");
  py::class_<CudaPlan, Plan>(m, "CudaPlan")
      .def(py::init<const DTypeNames&, const Columns&, bool>(), py::kw_only(), py::arg("dtypes"),
           py::arg("columns"), py::arg("joint_norm"))
      .def_property_readonly("memory_bytes", &CudaPlan::memory_bytes)
      .def("attach", &CudaPlan::attach, py::kw_only(), py::arg("device"), py::arg("stream"),
           py::arg("memory"), py::arg("reference_norms"), py::arg("lag") = 0,
           "Writes the plan's tables into zeroed device memory of memory_bytes, which the caller "
           "keeps alive, as it does the norms of the references. lag: see schedule.h; 0 for the "
           "device's own.");
}

}  // namespace d3
