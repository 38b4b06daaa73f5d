// SPDX-License-Identifier: Apache-2.0
#include "python/tensor_reader.h"

#include <algorithm>

namespace py = pybind11;

namespace d3 {

// As DLPack 1.x lays them out; only the fields that are read here have names.
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

PyObject* intern(const char* text) {
  PyObject* interned = PyUnicode_InternFromString(text);
  if (interned == nullptr) throw py::error_already_set();
  return interned;
}

// Interned once; they live as long as the interpreter.
struct Names {
  PyObject* version = intern("_version");
  PyObject* is_neg = intern("is_neg");
  PyObject* data_ptr = intern("data_ptr");
  PyObject* shape = intern("shape");
  PyObject* stride = intern("stride");
  PyObject* dtype = intern("dtype");
  PyObject* get_device = intern("get_device");
};

const Names& names() {
  static const Names all;
  return all;
}

// Converts a result to a number and releases it; false with an error set.
bool take_number(PyObject* result, int64_t& value) {
  if (result == nullptr) return false;
  value = static_cast<int64_t>(PyLong_AsUnsignedLongLongMask(result));
  Py_DECREF(result);
  return PyErr_Occurred() == nullptr;
}

// Appends a tuple of numbers and releases it; false with an error set.
bool take_tuple(PyObject* tuple, std::vector<int64_t>& numbers) {
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

bool read_version(PyObject* tensor, int64_t& version) {
  return take_number(PyObject_GetAttr(tensor, names().version), version);
}

bool read_negative_bit(PyObject* tensor, bool& negative) {
  PyObject* result = PyObject_CallMethodNoArgs(tensor, names().is_neg);
  if (result == nullptr) return false;
  negative = result == Py_True;
  Py_DECREF(result);
  return true;
}

int64_t TensorView::numel() const {
  int64_t product = 1;
  for (int64_t i = 0; i < dims; ++i) product *= sizes[i];
  return product;
}

TensorLayout::TensorLayout(const TensorView& view)
    : data(view.data),
      dtype(view.dtype),
      device(view.device),
      sizes(view.sizes, view.sizes + view.dims),
      strides(view.strides, view.strides + view.dims) {}

bool TensorLayout::same_sizes(const TensorView& view) const {
  return view.dims == static_cast<int64_t>(sizes.size()) &&
         std::equal(sizes.begin(), sizes.end(), view.sizes);
}

bool TensorLayout::same_order(const TensorView& view) const {
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] != 1 && strides[i] != view.strides[i]) return false;
  }
  return true;
}

bool TensorLayout::operator==(const TensorView& view) const {
  return data == view.data && dtype == view.dtype && device == view.device && same_sizes(view) &&
         std::equal(strides.begin(), strides.end(), view.strides);
}

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
  if (!take_number(PyObject_CallMethodNoArgs(tensor, names().data_ptr), data)) return false;
  if (!take_number(PyObject_CallMethodNoArgs(tensor, names().get_device), device)) return false;
  PyObject* dtype = PyObject_GetAttr(tensor, names().dtype);
  if (dtype == nullptr) return false;
  view.dtype = reinterpret_cast<uint64_t>(dtype);  // there is one object per dtype
  Py_DECREF(dtype);
  numbers_.clear();
  if (!take_tuple(PyObject_GetAttr(tensor, names().shape), numbers_)) return false;
  const size_t dims = numbers_.size();
  if (!take_tuple(PyObject_CallMethodNoArgs(tensor, names().stride), numbers_)) return false;
  view.data = static_cast<Address>(data);
  view.device = static_cast<uint64_t>(device);
  view.dims = static_cast<int64_t>(dims);
  view.sizes = numbers_.data();
  view.strides = numbers_.data() + dims;
  return numbers_.size() == 2 * dims;
}

}  // namespace d3
