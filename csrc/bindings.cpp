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

std::vector<Segment> segments_of(const Addresses& theta, const std::vector<int64_t>& numel,
                                 const Addresses& reference, const Addresses& momentum,
                                 const Addresses& distance) {
  const auto fits = [&](const char* name, size_t size) {
    D3_CHECK(size == 0 || size == theta.size(),
             name << " must have " << theta.size() << " entries or none, got " << size);
  };
  D3_CHECK(numel.size() == theta.size(),
           "numel must have " << theta.size() << " entries, got " << numel.size());
  fits("reference", reference.size());
  fits("momentum", momentum.size());
  fits("distance", distance.size());
  // An empty tensor has no storage; null would say that its group has no such array.
  static double nothing = 0;
  const auto storage = [](Address address, int64_t n) {
    return n == 0 ? static_cast<void*>(&nothing) : pointer<void>(address);
  };
  std::vector<Segment> segments(theta.size());
  for (size_t i = 0; i < theta.size(); ++i) {
    Segment& s = segments[i];
    s.theta = pointer<void>(theta[i]);
    s.numel = numel[i];
    if (!reference.empty()) s.reference = storage(reference[i], numel[i]);
    if (!momentum.empty()) s.momentum = storage(momentum[i], numel[i]);
    if (!distance.empty()) s.distance = pointer<double>(distance[i]);
    D3_CHECK(s.numel == 0 || (s.theta != nullptr && (reference.empty() || s.reference != nullptr) &&
                              (momentum.empty() || s.momentum != nullptr)),
             "tensor " << i << " of " << s.numel << " elements has no storage");
  }
  return segments;
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
  CpuPlan(const std::string& dtype, const Addresses& theta, const std::vector<int64_t>& numel,
          const Addresses& reference, const Addresses& momentum, const Addresses& distance,
          std::vector<double> reference_norms, bool joint)
      : single_(dtype == "float32"),
        cut_(cut(segments_of(theta, numel, reference, momentum, distance), joint, kCpuChunk)),
        reference_norms_(std::move(reference_norms)) {
    D3_CHECK(single_ || dtype == "float64", "dtype must be float32 or float64, got " << dtype);
    D3_CHECK(reference.empty() || reference_norms_.size() == theta.size(),
             "reference_norms must have " << theta.size() << " entries, got "
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
    single_ ? cpu_step<float>(call) : cpu_step<double>(call);
  }

 private:
  bool single_;
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

  py::class_<CpuPlan>(m, "CpuPlan")
      .def(py::init<const std::string&, const Addresses&, const std::vector<int64_t>&,
                    const Addresses&, const Addresses&, const Addresses&, std::vector<double>,
                    bool>(),
           py::kw_only(), py::arg("dtype"), py::arg("theta"), py::arg("numel"),
           py::arg("reference"), py::arg("momentum"), py::arg("distance"),
           py::arg("reference_norms"), py::arg("joint"))
      .def("step", &CpuPlan::step, py::arg("grads"), py::arg("fresh"), py::arg("verify"),
           py::arg("threads"), py::arg("options"));
  bind_watch(m);
#if defined(D3_WITH_CUDA)
  bind_cuda(m);
#endif
}
