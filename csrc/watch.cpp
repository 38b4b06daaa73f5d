// SPDX-License-Identifier: Apache-2.0
#include "watch.h"

#include <pybind11/stl.h>

#include <algorithm>

namespace py = pybind11;

namespace d3 {

// As DLPack 1.x lays them out; only what is read here has a name.
struct DlTensor {
  void* data;
  int32_t device_type, device_index;
  int32_t dims;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t* sizes;
  int64_t* strides;
  uint64_t byte_offset;
};

namespace {

struct DlExchange {
  uint32_t major, minor;
  DlExchange* older;
  void* unused[3];
  int (*to_dlpack)(void* tensor, DlTensor* out);  // may be null
};

constexpr const char* kCapsule = "dlpack_exchange_api";

PyObject* name(const char* text) {
  PyObject* interned = PyUnicode_InternFromString(text);
  if (interned == nullptr) throw py::error_already_set();
  return interned;
}

// Names are interned once; they live as long as the interpreter.
struct Names {
  PyObject* grad = name("grad");
  PyObject* version = name("_version");
  PyObject* data_ptr = name("data_ptr");
  PyObject* shape = name("shape");
  PyObject* stride = name("stride");
  PyObject* dtype = name("dtype");
  PyObject* get_device = name("get_device");
};

const Names& names() {
  static const Names all;
  return all;
}

// The number an attribute, or else a method without arguments, gives; false with an error set.
bool number(PyObject* object, PyObject* name, bool call, int64_t& value) {
  PyObject* result =
      call ? PyObject_CallMethodNoArgs(object, name) : PyObject_GetAttr(object, name);
  if (result == nullptr) return false;
  value = static_cast<int64_t>(PyLong_AsUnsignedLongLongMask(result));
  Py_DECREF(result);
  return PyErr_Occurred() == nullptr;
}

bool version_of(PyObject* tensor, int64_t& version) {
  return number(tensor, names().version, false, version);
}

// Appends a tuple of numbers; takes the tuple over. False with an error set.
bool append(PyObject* tuple, std::vector<int64_t>& numbers) {
  if (tuple == nullptr) return false;
  if (PyTuple_Check(tuple)) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple); ++i) {
      numbers.push_back(PyLong_AsLongLong(PyTuple_GET_ITEM(tuple, i)));
    }
  } else {
    PyErr_SetString(PyExc_TypeError, "a tensor's shape and strides must be tuples");
  }
  Py_DECREF(tuple);
  return PyErr_Occurred() == nullptr;
}

}  // namespace

TensorReader::TensorReader(const py::object& exchange) {
  if (!PyCapsule_IsValid(exchange.ptr(), kCapsule)) return;
  auto* table = static_cast<DlExchange*>(PyCapsule_GetPointer(exchange.ptr(), kCapsule));
  while (table != nullptr && table->major > 1) table = table->older;
  if (table != nullptr && table->major == 1) to_dlpack_ = table->to_dlpack;
}

bool TensorReader::read(PyObject* tensor, TensorView& view) {
  if (to_dlpack_ != nullptr) {
    DlTensor t = {};
    if (to_dlpack_(tensor, &t) == 0) {
      view.data = reinterpret_cast<Address>(t.data) + t.byte_offset;
      view.dtype = uint64_t{t.code} << 32 | uint64_t{t.bits} << 16 | t.lanes;
      view.device = uint64_t(uint32_t(t.device_type)) << 32 | uint32_t(t.device_index);
      view.dims = t.dims;
      view.sizes = t.sizes;
      view.strides = t.strides;
      return true;
    }
  } else if (call_methods(tensor, view)) {
    return true;
  }
  PyErr_Clear();
  return false;
}

bool TensorReader::call_methods(PyObject* tensor, TensorView& view) {
  int64_t data = 0, device = 0;
  if (!number(tensor, names().data_ptr, true, data)) return false;
  if (!number(tensor, names().get_device, true, device)) return false;
  PyObject* dtype = PyObject_GetAttr(tensor, names().dtype);
  if (dtype == nullptr) return false;
  view.dtype = reinterpret_cast<uint64_t>(dtype);  // there is one object per dtype
  Py_DECREF(dtype);
  numbers_.clear();
  if (!append(PyObject_GetAttr(tensor, names().shape), numbers_)) return false;
  const size_t dims = numbers_.size();
  if (!append(PyObject_CallMethodNoArgs(tensor, names().stride), numbers_)) return false;
  view.data = static_cast<Address>(data);
  view.device = static_cast<uint64_t>(device);
  view.dims = static_cast<int64_t>(dims);
  view.sizes = numbers_.data();
  view.strides = numbers_.data() + dims;
  return numbers_.size() == 2 * dims;
}

void Place::keep(const TensorView& view) {
  data = view.data;
  dtype = view.dtype;
  device = view.device;
  sizes.assign(view.sizes, view.sizes + view.dims);
  strides.assign(view.strides, view.strides + view.dims);
}

bool Place::same_sizes(const TensorView& view) const {
  return view.dims == static_cast<int64_t>(sizes.size()) &&
         std::equal(sizes.begin(), sizes.end(), view.sizes);
}

bool Place::same_strides(const TensorView& view) const {
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] != 1 && strides[i] != view.strides[i]) return false;
  }
  return true;
}

bool Place::is(const TensorView& view) const {
  return data == view.data && dtype == view.dtype && device == view.device && same_sizes(view) &&
         std::equal(strides.begin(), strides.end(), view.strides);
}

Watch::Watch(const py::object& params, const py::dict& state,
             const std::vector<std::string>& columns, const py::object& exchange)
    : reader_(exchange), columns_(columns.begin(), columns.end()) {
  TensorView view;
  const auto keep = [&](PyObject* tensor, Place& place) {
    if (!reader_.read(tensor, view)) throw py::value_error("a tensor has no address and strides");
    place.keep(view);
  };
  for (const py::handle param : params) {
    params_.push_back(param.ptr());
    taking_part_.push_back(!param.attr("grad").is_none());
    if (!taking_part_.back()) continue;
    const py::object own = state[param];
    Member member = {param.ptr(), 0, {}, {}};
    keep(member.param, member.place);
    for (const py::str& column : columns_) {
      Held held = {py::object(own[column]).ptr(), {}, -1};
      keep(held.tensor, held.place);
      if (std::string(column) == "reference" && !version_of(held.tensor, held.version)) {
        throw py::error_already_set();
      }
      member.held.push_back(std::move(held));
    }
    members_.push_back(std::move(member));
  }
}

// Whether a parameter that takes part, and its state, are what they were.
bool Watch::holds(Member& member, PyObject* state) {
  TensorView view;
  if (!reader_.read(member.param, view) || !member.place.is(view)) return false;
  // Where the entry was the last time it mostly still is: that saves the call of Tensor.__hash__.
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
    const Held& held = member.held[i];
    if (PyDict_GetItemWithError(own, columns_[i].ptr()) != held.tensor) return false;
    if (!reader_.read(held.tensor, view) || !held.place.is(view)) return false;
    int64_t version = -1;
    if (held.version >= 0 && (!version_of(held.tensor, version) || version != held.version)) {
      return false;
    }
  }
  return true;
}

py::object Watch::look(const py::object& params, const py::dict& state) {
  const auto changed = [this] {
    PyErr_Clear();
    direct_ = false;
    return py::none();
  };
  const auto all = py::reinterpret_steal<py::object>(PySequence_Fast(params.ptr(), "params"));
  if (!all || PySequence_Fast_GET_SIZE(all.ptr()) != static_cast<Py_ssize_t>(params_.size())) {
    return changed();
  }
  py::list grads(members_.size());
  addresses_.resize(members_.size());
  direct_ = true;
  edited_ = versions_.empty();
  size_t at = 0;
  TensorView view;
  for (size_t i = 0; i < params_.size(); ++i) {
    PyObject* param = PySequence_Fast_GET_ITEM(all.ptr(), static_cast<Py_ssize_t>(i));
    if (param != params_[i]) return changed();
    PyObject* grad = PyObject_GetAttr(param, names().grad);
    if (grad == nullptr) return changed();
    if ((grad != Py_None) != taking_part_[i]) {
      Py_DECREF(grad);
      return changed();
    }
    if (grad == Py_None) {
      Py_DECREF(grad);
      continue;
    }
    PyList_SET_ITEM(grads.ptr(), static_cast<Py_ssize_t>(at), grad);  // takes the reference over
    Member& member = members_[at];
    if (!holds(member, state.ptr())) return changed();
    const Place& place = member.place;
    if (!reader_.read(grad, view)) return changed();
    if (view.device != place.device || !place.same_sizes(view)) return changed();
    direct_ = direct_ && view.dtype == place.dtype && place.same_strides(view);
    addresses_[at] = view.data;
    int64_t version = 0;
    if (!version_of(param, version)) return changed();
    edited_ = edited_ || version != versions_[at];
    ++at;
  }
  return std::move(grads);
}

py::object Watch::addresses() const {
  if (!direct_) return py::none();
  return py::cast(addresses_);
}

void Watch::settle() {
  versions_.resize(members_.size());
  for (size_t i = 0; i < members_.size(); ++i) {
    if (!version_of(members_[i].param, versions_[i])) {
      versions_.clear();
      throw py::error_already_set();
    }
  }
}

void bind_watch(py::module_& m) {
  py::class_<Watch>(m, "Watch")
      .def(py::init<const py::object&, const py::dict&, const std::vector<std::string>&,
                    const py::object&>(),
           py::kw_only(), py::arg("params"), py::arg("state"), py::arg("columns"),
           py::arg("exchange"))
      .def("look", &Watch::look, py::arg("params"), py::arg("state"))
      .def("settle", &Watch::settle)
      .def_property_readonly("addresses", &Watch::addresses)
      .def_property_readonly("edited", &Watch::edited)
      .def_property_readonly("versions", &Watch::versions);
}

}  // namespace d3
