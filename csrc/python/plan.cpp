// SPDX-License-Identifier: Apache-2.0
#include "python/plan.h"

#include <pybind11/stl.h>

#include <tuple>
#include <utility>

#include "common/check.h"

namespace py = pybind11;

namespace d3 {
namespace {

std::vector<Segment> segments_of(const Columns& columns, const DTypeNames& dtypes) {
  const size_t n = columns.theta.size();
  const auto check_length = [n](const char* name, size_t length, bool optional) {
    D3_CHECK_ARG(name, length << " entries", length == n || (optional && length == 0),
                 "must have " << n << " entries" << (optional ? " or none" : ""));
  };
  check_length("numel", columns.numel.size(), false);
  check_length("compensation", columns.compensation.size(), true);
  check_length("reference", columns.reference.size(), true);
  check_length("momentum", columns.momentum.size(), true);
  check_length("variance", columns.variance.size(), true);
  check_length("steps", columns.steps.size(), true);
  check_length("distance", columns.distance.size(), true);
  check_length("whole", columns.whole.size(), true);
  check_length("counts", columns.counts.size(), true);
  const bool compensated = !columns.reference.empty() && is_half(dtypes.weight);
  D3_CHECK_ARG("compensation", columns.compensation.size() << " entries for " << dtypes.weight,
               n == 0 || compensated == !columns.compensation.empty(),
               "belongs to tracked weights of a half type");
  // An empty tensor has no storage; null would mean that its group has no such column.
  static double nothing = 0;
  const auto storage = [&](const char* name, const Addresses& column, size_t i) -> void* {
    if (column.empty()) return nullptr;
    if (columns.numel[i] == 0) return &nothing;
    D3_CHECK_ARG(name << "[" << i << "]", column[i], column[i] != 0, "must be an address");
    return pointer<void>(column[i]);
  };
  std::vector<Segment> segments(n);
  for (size_t i = 0; i < n; ++i) {
    Segment& s = segments[i];
    s.numel = columns.numel[i];
    s.whole = columns.whole.empty() ? s.numel : columns.whole[i];
    s.counts = columns.counts.empty() || columns.counts[i];
    s.theta = storage("theta", columns.theta, i);
    s.compensation = storage("compensation", columns.compensation, i);
    s.reference = storage("reference", columns.reference, i);
    s.momentum = storage("momentum", columns.momentum, i);
    s.variance = storage("variance", columns.variance, i);
    if (!columns.steps.empty()) s.steps = pointer<float>(columns.steps[i]);
    if (!columns.distance.empty()) s.distance = pointer<double>(columns.distance[i]);
  }
  return segments;
}

using ChunkTuple = std::tuple<int64_t, int64_t, int64_t>;
using NormGroupTuple = std::tuple<int64_t, int64_t, int64_t, int64_t>;

std::pair<std::vector<ChunkTuple>, std::vector<NormGroupTuple>> partition_of(
    const std::vector<int64_t>& numel, bool joint_norm, int64_t chunk_length) {
  std::vector<Segment> segments(numel.size());
  for (size_t i = 0; i < numel.size(); ++i) segments[i].numel = segments[i].whole = numel[i];
  const Partition partition = make_partition(std::move(segments), joint_norm, chunk_length);
  std::vector<ChunkTuple> chunks;
  for (const Chunk& c : partition.chunks) chunks.emplace_back(c.segment, c.offset, c.length);
  std::vector<NormGroupTuple> groups;
  for (const NormGroup& g : partition.norm_groups)
    groups.emplace_back(g.first_segment, g.segments, g.first_chunk, g.chunks);
  return {chunks, groups};
}

// A constructor by keyword for a struct whose fields are attributes: a field without a keyword
// keeps its default, a keyword without a field raises AttributeError.
template <class Struct>
Struct from_keywords(const py::kwargs& fields) {
  const py::object made = py::cast(Struct());
  for (const auto& [name, value] : fields) py::setattr(made, name, value);
  return made.cast<Struct>();
}

}  // namespace

Plan::Plan(const DTypeNames& dtypes, const Columns& columns, bool joint_norm, int64_t chunk_length)
    : partition_(make_partition(segments_of(columns, dtypes), joint_norm, chunk_length)) {}

void Plan::check(const StepRequest& request) const {
  const size_t n = partition_.segments.size(), flags = request.first_step.size();
  D3_CHECK_ARG("grads", request.grads.size() << " entries", request.grads.size() == n,
               "must have " << n << " entries");
  D3_CHECK_ARG("first_step", flags << " entries", flags == 0 || flags == n,
               "must have " << n << " entries or none");
  for (size_t i = 0; i < n; ++i) {
    D3_CHECK_ARG("grads[" << i << "]", request.grads[i],
                 request.grads[i] != 0 || partition_.segments[i].numel == 0, "must be an address");
  }
  const Phase phase = request.phase;
  D3_CHECK_ARG("sums", request.sums,
               request.sums != 0 || phase == Phase::whole || phase == Phase::project,
               "must be an address");
  D3_CHECK_ARG("totals", request.totals,
               request.totals != 0 || phase == Phase::whole || phase == Phase::update,
               "must be an address");
  check_options(partition_, request.options);
}

void refuse_dtypes(const DTypeNames& dtypes) {
  D3_FAIL(std::invalid_argument, "dtypes must be ones that have kernels, got weight = "
                                     << dtypes.weight << ", momentum = " << dtypes.momentum
                                     << ", reference = " << dtypes.reference);
}

#define D3_FIELD(Struct, name) def_readwrite(#name, &Struct::name)

void bind_plan(py::module_& m) {
  m.def("partition", &partition_of, py::arg("numel"), py::arg("joint_norm"),
        py::arg("chunk_length"),
        "How tensors of these sizes are partitioned: chunks (segment, offset, length) and norm "
        "groups (first_segment, segments, first_chunk, chunks).");

  py::enum_<Center>(m, "Center", "The point that a projection rescales around.")
      .value("none", Center::none)
      .value("origin", Center::origin)
      .value("reference", Center::reference);

  py::enum_<Phase>(m, "Phase", "What a call of Plan.step takes; all but whole are of a shard.")
      .value("whole", Phase::whole)
      .value("update", Phase::update)
      .value("correct", Phase::correct)
      .value("project", Phase::project);

  py::class_<Scalar>(m, "Scalar", "A number on the host, or the address of one on the device.")
      .def(py::init([](double value) { return Scalar{value}; }), py::arg("value"))
      .def(py::init([](Address device, bool is_double) {
             return Scalar{0, pointer<void>(device), is_double};
           }),
           py::kw_only(), py::arg("device"), py::arg("is_double"))
      .def_readonly("value", &Scalar::value)
      .def_property_readonly("device",
                             [](const Scalar& s) { return reinterpret_cast<Address>(s.device); })
      .def_readonly("is_double", &Scalar::is_double);
  py::implicitly_convertible<double, Scalar>();

  py::class_<StepOptions>(m, "StepOptions")
      .def(py::init(&from_keywords<StepOptions>))
      .D3_FIELD(StepOptions, lr)
      .D3_FIELD(StepOptions, momentum)
      .D3_FIELD(StepOptions, dampening)
      .D3_FIELD(StepOptions, weight_decay)
      .D3_FIELD(StepOptions, nesterov)
      .D3_FIELD(StepOptions, maximize)
      .D3_FIELD(StepOptions, adamw)
      .D3_FIELD(StepOptions, beta1)
      .D3_FIELD(StepOptions, beta2)
      .D3_FIELD(StepOptions, eps)
      .D3_FIELD(StepOptions, decoupled_push)
      .D3_FIELD(StepOptions, distance_weight)
      .D3_FIELD(StepOptions, p)
      .D3_FIELD(StepOptions, center)
      .D3_FIELD(StepOptions, lower)
      .D3_FIELD(StepOptions, upper)
      .D3_FIELD(StepOptions, relative)
      .def_property_readonly(
          "needs_verification",
          [](const StepOptions& o) {
            return needs_verification(rule_of(o), o.lr.value, o.weight_decay);
          },
          "Whether a step can only start from norms that were verified.");

  py::class_<DTypeNames>(m, "DTypeNames")
      .def(py::init(&from_keywords<DTypeNames>))
      .D3_FIELD(DTypeNames, weight)
      .D3_FIELD(DTypeNames, momentum)
      .D3_FIELD(DTypeNames, reference);

  py::class_<Columns>(m, "Columns")
      .def(py::init(&from_keywords<Columns>))
      .D3_FIELD(Columns, theta)
      .D3_FIELD(Columns, numel)
      .D3_FIELD(Columns, compensation)
      .D3_FIELD(Columns, reference)
      .D3_FIELD(Columns, momentum)
      .D3_FIELD(Columns, variance)
      .D3_FIELD(Columns, steps)
      .D3_FIELD(Columns, distance)
      .D3_FIELD(Columns, whole)
      .D3_FIELD(Columns, counts);

  py::class_<Plan>(m, "Plan").def(
      "step",
      [](Plan& plan, Addresses grads, std::vector<bool> first_step, bool verify,
         const StepOptions& options, const Scalar& grad_scale, const Scalar& found_inf,
         uint64_t executor, Phase phase, Address sums, Address totals, Address held) {
        return plan.step({std::move(grads), std::move(first_step), verify, options, grad_scale,
                          found_inf, executor, phase, sums, totals, held});
      },
      py::kw_only(), py::arg("grads"), py::arg("first_step") = std::vector<bool>(),
      py::arg("verify"), py::arg("options"), py::arg("grad_scale") = Scalar{1},
      py::arg("found_inf") = Scalar{0}, py::arg("executor"), py::arg("phase") = Phase::whole,
      py::arg("sums") = 0, py::arg("totals") = 0, py::arg("held") = 0);
}

}  // namespace d3
