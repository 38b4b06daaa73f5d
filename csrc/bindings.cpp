// SPDX-License-Identifier: Apache-2.0
//
// What Python sees: a Plan per param group that keeps the addresses of a group's tensors, checks
// what it is given and takes steps. Addresses cross as integers, so this builds without torch.
#include "bindings.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <string>

#include "check.h"
#include "cpu/parallel.h"
#include "cpu/step.h"
#include "cpu/sweeps.h"
#include "plan.h"
#include "step_math.h"
#include "watch.h"

#if defined(D3_WITH_CUDA)
#include "cuda/step.h"
#endif

namespace py = pybind11;

namespace d3 {

std::vector<Segment> segments_of(const Columns& columns, const Dtypes& types) {
  const size_t n = columns.theta.size();
  const auto fits = [n](const char* name, const Addresses& column) {
    D3_CHECK(column.empty() || column.size() == n,
             name << " must have " << n << " entries or none, got " << column.size());
  };
  D3_CHECK(columns.numel.size() == n,
           "numel must have " << n << " entries, got " << columns.numel.size());
  fits("compensation", columns.compensation);
  fits("reference", columns.reference);
  fits("momentum", columns.momentum);
  fits("distance", columns.distance);
  const bool compensated = !columns.reference.empty() && is_half(types.weight);
  D3_CHECK(n == 0 || compensated == !columns.compensation.empty(),
           "compensation belongs to tracked weights of a half type, got "
               << columns.compensation.size() << " entries for " << types.weight);
  // An empty tensor has no storage; null would say that its group has no such array.
  static double nothing = 0;
  const auto storage = [&](const Addresses& column, size_t i) {
    if (column.empty()) return static_cast<void*>(nullptr);
    const bool empty = columns.numel[i] == 0;
    D3_CHECK(empty || column[i] != 0,
             "tensor " << i << " of " << columns.numel[i] << " elements has no storage");
    return empty ? static_cast<void*>(&nothing) : pointer<void>(column[i]);
  };
  std::vector<Segment> segments(n);
  for (size_t i = 0; i < n; ++i) {
    Segment& s = segments[i];
    s.numel = columns.numel[i];
    s.theta = storage(columns.theta, i);
    s.compensation = storage(columns.compensation, i);
    s.reference = storage(columns.reference, i);
    s.momentum = storage(columns.momentum, i);
    if (!columns.distance.empty()) s.distance = pointer<double>(columns.distance[i]);
  }
  return segments;
}

void refuse(const Dtypes& types) {
  throw std::invalid_argument("there are no kernels for dtype " + types.weight +
                              ", momentum_dtype " + types.momentum + ", reference_dtype " +
                              types.reference);
}

void check_options(const Cut& cut, const StepOptions& o) {
  const bool tracked = !cut.segments.empty() && cut.segments[0].reference != nullptr;
  const bool carried = !cut.segments.empty() && cut.segments[0].distance != nullptr;
  const bool buffered = !cut.segments.empty() && cut.segments[0].momentum != nullptr;
  D3_CHECK(o.p == 1 || o.p == 2, "p must be 1 or 2, got " << o.p);
  D3_CHECK(o.center >= 0 && o.center <= 2, "center must be 0, 1 or 2, got " << o.center);
  D3_CHECK(tracked || (o.center == 0 && o.distance_weight == 0), "the plan has no reference");
  D3_CHECK(!tracked || o.p == 1 || carried, "p = 2 needs the carried distances");
  D3_CHECK(o.momentum == 0 || buffered, "momentum = " << o.momentum << " needs buffers");
  D3_CHECK(o.center == 0 || o.lower <= o.upper,
           "lower bound " << o.lower << " is above upper bound " << o.upper);
}

namespace {

class CpuPlan {
 public:
  CpuPlan(const Dtypes& types, const Columns& columns, std::vector<double> reference_norms,
          bool joint)
      : stepper_(cpu_stepper(types)),
        cut_(cut(segments_of(columns, types), joint, kCpuChunk)),
        reference_norms_(std::move(reference_norms)) {
    if (stepper_ == nullptr) refuse(types);
    D3_CHECK(columns.reference.empty() || reference_norms_.size() == columns.theta.size(),
             "reference_norms must have " << columns.theta.size() << " entries, got "
                                          << reference_norms_.size());
  }

  void step(const Addresses& grads, const std::vector<bool>& fresh, bool verify, int threads,
            const StepOptions& options) const {
    const size_t n = cut_.segments.size();
    D3_CHECK(grads.size() == n, "grads must have " << n << " entries, got " << grads.size());
    D3_CHECK(fresh.empty() || fresh.size() == n,
             "fresh must have " << n << " entries or none, got " << fresh.size());
    D3_CHECK(threads >= 1, "threads must be >= 1, got " << threads);
    check_options(cut_, options);
    std::vector<void*> pointers(n);
    const std::unique_ptr<bool[]> first(new bool[n]);
    for (size_t i = 0; i < n; ++i) {
      D3_CHECK(grads[i] != 0 || cut_.segments[i].numel == 0, "gradient " << i << " has no storage");
      pointers[i] = pointer<void>(grads[i]);
      first[i] = !fresh.empty() && fresh[i];
    }
    CpuStep call;
    call.cut = &cut_;
    call.reference_norms = reference_norms_.data();
    call.grads = pointers.data();
    call.fresh = first.get();
    call.verify = verify;
    call.threads = threads;
    call.options = options;
    py::gil_scoped_release release;
    stepper_(call);
  }

 private:
  CpuStepper stepper_;
  Cut cut_;
  std::vector<double> reference_norms_;
};

py::dict build_info() {
  py::dict info;
#if defined(__clang__)
  info["compiler"] = std::string("clang ") + __clang_version__;
#elif defined(__GNUC__)
  info["compiler"] = std::string("gcc ") + __VERSION__;
#else
  info["compiler"] = "unknown";
#endif
  info["simd_levels"] = simd_levels();
  info["simd_level"] = simd_level();
  info["shares_openmp_pool"] = shares_openmp_pool();
  info["cuda"] = D3_CUDA_VERSION;
  info["cuda_archs"] = D3_CUDA_ARCHS;
  return info;
}

}  // namespace
}  // namespace d3

PYBIND11_MODULE(_C, m) {
  using namespace d3;
  m.doc() = "Kernels of d3fast. Private: the public interface is d3fast.D3FusedSGD.";
  m.def("build_info", &build_info, "What the extension was built with and what it uses.");
  m.def(
      "cut",
      [](const std::vector<int64_t>& numel, bool joint, int64_t chunk_length) {
        std::vector<Segment> segments(numel.size());
        for (size_t i = 0; i < numel.size(); ++i) segments[i].numel = numel[i];
        const Cut result = cut(std::move(segments), joint, chunk_length);
        std::vector<std::tuple<int64_t, int64_t, int64_t>> chunks;
        for (const Chunk& c : result.chunks) chunks.emplace_back(c.segment, c.offset, c.length);
        std::vector<std::tuple<int64_t, int64_t, int64_t, int64_t>> units;
        for (const Unit& u : result.units) {
          units.emplace_back(u.first_segment, u.segments, u.first_chunk, u.chunks);
        }
        return std::make_pair(chunks, units);
      },
      py::arg("numel"), py::arg("joint"), py::arg("chunk_length"),
      "How tensors of these sizes are cut: chunks (segment, offset, length) and units "
      "(first_segment, segments, first_chunk, chunks).");

  py::class_<StepOptions>(m, "StepOptions")
      .def(py::init([](double lr, double momentum, double dampening, double weight_decay,
                       bool nesterov, bool maximize, double distance_weight, int p, int center,
                       double lower, double upper, bool relative, double grad_scale) {
             return StepOptions{lr,       momentum,        dampening, weight_decay, nesterov,
                                maximize, distance_weight, p,         center,       lower,
                                upper,    relative,        grad_scale};
           }),
           py::kw_only(), py::arg("lr"), py::arg("momentum"), py::arg("dampening"),
           py::arg("weight_decay"), py::arg("nesterov"), py::arg("maximize"),
           py::arg("distance_weight"), py::arg("p"), py::arg("center"), py::arg("lower"),
           py::arg("upper"), py::arg("relative"), py::arg("grad_scale"));

  py::class_<Dtypes>(m, "Dtypes")
      .def(py::init([](std::string weight, std::string momentum, std::string reference) {
             return Dtypes{std::move(weight), std::move(momentum), std::move(reference)};
           }),
           py::kw_only(), py::arg("weight"), py::arg("momentum"), py::arg("reference"));

  py::class_<Columns>(m, "Columns")
      .def(py::init([](Addresses theta, std::vector<int64_t> numel, Addresses compensation,
                       Addresses reference, Addresses momentum, Addresses distance) {
             return Columns{std::move(theta),     std::move(numel),    std::move(compensation),
                            std::move(reference), std::move(momentum), std::move(distance)};
           }),
           py::kw_only(), py::arg("theta"), py::arg("numel"), py::arg("compensation"),
           py::arg("reference"), py::arg("momentum"), py::arg("distance"));

  py::class_<CpuPlan>(m, "CpuPlan")
      .def(py::init<const Dtypes&, const Columns&, std::vector<double>, bool>(), py::kw_only(),
           py::arg("dtypes"), py::arg("columns"), py::arg("reference_norms"), py::arg("joint"))
      .def("step", &CpuPlan::step, py::arg("grads"), py::arg("fresh"), py::arg("verify"),
           py::arg("threads"), py::arg("options"));
  bind_watch(m);
#if defined(D3_WITH_CUDA)
  bind_cuda(m);
#endif
}
