// SPDX-License-Identifier: Apache-2.0
#include "python/tensor_guard.h"

#include <pybind11/stl.h>

#include <tuple>
#include <utility>

namespace py = pybind11;

namespace d3 {

TensorGuard::TensorGuard(const py::object& params, const py::dict& state,
                         const std::vector<std::string>& columns, const py::object& exchange)
    : reader_(exchange), columns_(columns.begin(), columns.end()) {
  const auto layout_of = [this](PyObject* tensor) {
    TensorView view;
    if (!reader_.read(tensor, view)) throw py::value_error("a tensor has no address and strides");
    return TensorLayout(view);
  };
  for (const py::handle param : params) {
    params_.push_back(param.ptr());
    taking_part_.push_back(!param.attr("grad").is_none());
    if (!taking_part_.back()) continue;
    Member member = {param.ptr(), 0, layout_of(param.ptr()), {}};
    for (const py::str& column : columns_) {
      const py::object own = state[param];
      PyObject* const tensor = py::object(own[column]).ptr();
      StateTensor entry = {tensor, layout_of(tensor), -1};
      if (std::string(column) == "reference" && !read_version(tensor, entry.version)) {
        throw py::error_already_set();
      }
      member.state.push_back(std::move(entry));
    }
    members_.push_back(std::move(member));
  }
}

// Compares a parameter that takes part, and its state.
bool TensorGuard::member_matches(Member& member, PyObject* state) {
  TensorView view;
  if (!reader_.read(member.param, view) || !(member.layout == view)) return false;
  if (columns_.empty()) return true;
  // Mostly the entry is where it was the last time, which saves a call of Tensor.__hash__.
  PyObject *key = nullptr, *own = nullptr;
  Py_ssize_t next = member.at;
  if (!PyDict_Next(state, &next, &key, &own) || key != member.param) {
    next = 0;
    do {
      member.at = next;
    } while (PyDict_Next(state, &next, &key, &own) && key != member.param);
  }
  if (key != member.param) return false;
  for (size_t i = 0; i < columns_.size(); ++i) {
    const StateTensor& entry = member.state[i];
    if (PyDict_GetItemWithError(own, columns_[i].ptr()) != entry.tensor) return false;
    if (!reader_.read(entry.tensor, view) || !(entry.layout == view)) return false;
    int64_t version = -1;
    if (entry.version < 0) continue;
    if (!read_version(entry.tensor, version) || version != entry.version) return false;
  }
  return true;
}

bool TensorGuard::gradient_matches(const Member& member, PyObject* grad, Address& address) {
  TensorView view;
  bool negative = false;
  if (!reader_.read(grad, view) || !read_negative_bit(grad, negative)) return false;
  const TensorLayout& param = member.layout;
  if (view.device != param.device || !param.same_sizes(view)) return false;
  const bool has_memory = view.data != 0 || view.numel() == 0;
  readable_ =
      readable_ && has_memory && !negative && view.dtype == param.dtype && param.same_order(view);
  address = view.data;
  return true;
}

bool TensorGuard::matches(const py::object& params, const py::dict& state) {
  const auto all = py::reinterpret_steal<py::object>(PySequence_Fast(params.ptr(), "params"));
  const auto outdated = [this] {
    PyErr_Clear();
    return readable_ = false;
  };
  if (!all || PySequence_Fast_GET_SIZE(all.ptr()) != static_cast<Py_ssize_t>(params_.size())) {
    return outdated();
  }
  static PyObject* const grad_name = PyUnicode_InternFromString("grad");
  gradients_.resize(members_.size());
  readable_ = true;
  edited_ = versions_.empty();
  size_t at = 0;
  for (size_t i = 0; i < params_.size(); ++i) {
    PyObject* const param = PySequence_Fast_GET_ITEM(all.ptr(), static_cast<Py_ssize_t>(i));
    if (param != params_[i]) return outdated();
    const auto grad = py::reinterpret_steal<py::object>(PyObject_GetAttr(param, grad_name));
    if (!grad || grad.is_none() == taking_part_[i]) return outdated();
    if (grad.is_none()) continue;
    Member& member = members_[at];
    if (!member_matches(member, state.ptr())) return outdated();
    if (!gradient_matches(member, grad.ptr(), gradients_[at])) return outdated();
    int64_t version = 0;
    if (!read_version(param, version)) return outdated();
    edited_ = edited_ || version != versions_[at];
    ++at;
  }
  return true;
}

void TensorGuard::record_versions() {
  versions_.resize(members_.size());
  for (size_t i = 0; i < members_.size(); ++i) {
    if (!read_version(members_[i].param, versions_[i])) {
      versions_.clear();
      throw py::error_already_set();
    }
  }
}

py::list TensorGuard::params() const {
  py::list tensors(members_.size());
  for (size_t i = 0; i < members_.size(); ++i) {
    tensors[i] = py::reinterpret_borrow<py::object>(members_[i].param);
  }
  return tensors;
}

namespace {

// A param group's guard and plan, its parameters, its options, and where the step runs.
using GroupStep = std::tuple<TensorGuard*, Plan*, py::object, const StepOptions*, uint64_t>;

bool step_groups(const std::vector<GroupStep>& groups, const py::dict& state,
                 const py::object& increment_versions) {
  for (const auto& [guard, plan, params, options, executor] : groups) {
    if (!guard->matches(params, state) || !guard->readable()) return false;
  }
  for (const auto& [guard, plan, params, options, executor] : groups) {
    StepRequest request;
    request.grads = guard->gradients();
    request.verify = guard->edited();
    request.options = *options;
    request.executor = executor;
    plan->step(request);
    increment_versions(guard->params());
    guard->record_versions();
  }
  return true;
}

}  // namespace

void bind_guard(py::module_& m) {
  py::class_<TensorGuard>(m, "TensorGuard")
      .def(py::init<const py::object&, const py::dict&, const std::vector<std::string>&,
                    const py::object&>(),
           py::kw_only(), py::arg("params"), py::arg("state"), py::arg("columns"),
           py::arg("exchange"))
      .def("matches", &TensorGuard::matches, py::arg("params"), py::arg("state"))
      .def("record_versions", &TensorGuard::record_versions)
      .def_property_readonly("readable", &TensorGuard::readable)
      .def_property_readonly("gradients", &TensorGuard::gradients)
      .def_property_readonly("edited", &TensorGuard::edited)
      .def_property_readonly("versions", &TensorGuard::versions);
  m.def("step_groups", &step_groups, py::kw_only(), py::arg("groups"), py::arg("state"),
        py::arg("increment_versions"),
        "Takes the step of all groups in one call, given as (guard, plan, params, options, "
        "executor). Returns False, and does nothing, where one of them is outdated or has a "
        "gradient that the kernels cannot read.");
}

}  // namespace d3
