// SPDX-License-Identifier: Apache-2.0
//
// Steps of the CPU backend for tensors that come through stdin and go back through stdout: the
// kernels of another architecture can so be compared with those of this one. Both are little-endian
// and have the same sizes. test_aarch64.py writes the requests.
#include <cstdio>
#include <vector>

#include "cpu/launch.h"

using namespace d3;

namespace {

struct Header {
  int64_t tensors, joint_norm, verify, threads;
  int64_t compensated, tracked, buffered, squared, counted, measured;  // which columns there are
  char weight[16], momentum_dtype[16], reference_dtype[16];
  double lr, momentum, dampening, weight_decay, nesterov, maximize;
  double adamw, beta1, beta2, eps, decoupled_push;
  double distance_weight, p, center, lower, upper, relative, grad_scale;
};

bool read(void* to, size_t bytes) { return fread(to, 1, bytes, stdin) == bytes; }

void write(const void* from, size_t bytes) { fwrite(from, 1, bytes, stdout); }

size_t size_of(const std::string& dtype) { return is_half(dtype) ? 2 : dtype == "float32" ? 4 : 8; }

// Of the type that is computed in.
size_t size_of_real(const std::string& dtype) { return dtype == "float64" ? 8 : 4; }

StepOptions options_of(const Header& h) {
  StepOptions o;
  o.lr.value = h.lr;
  o.momentum = h.momentum;
  o.dampening = h.dampening;
  o.weight_decay = h.weight_decay;
  o.nesterov = h.nesterov != 0;
  o.maximize = h.maximize != 0;
  o.adamw = h.adamw != 0;
  o.beta1 = h.beta1;
  o.beta2 = h.beta2;
  o.eps = h.eps;
  o.decoupled_push = h.decoupled_push != 0;
  o.distance_weight = h.distance_weight;
  o.p = static_cast<int>(h.p);
  o.center = static_cast<Center>(static_cast<int>(h.center));
  o.lower.value = h.lower;
  o.upper.value = h.upper;
  o.relative = h.relative != 0;
  return o;
}

// One array of a tensor: read at once, written back after the step.
class Array {
 public:
  Array(bool exists, int64_t numel, size_t size) : memory_(exists ? numel * size + 1 : 0) {
    if (exists) read(memory_.data(), numel * size);
  }
  void* data() { return memory_.empty() ? nullptr : memory_.data(); }
  void send() const {
    if (!memory_.empty()) write(memory_.data(), memory_.size() - 1);
  }

 private:
  std::vector<char> memory_;  // one more byte than there are: an empty array has an address
};

void take_step(const Header& h) {
  const DTypeNames names = {h.weight, h.momentum_dtype, h.reference_dtype};
  const size_t weight = size_of(names.weight);
  std::vector<int64_t> numel(h.tensors), first(h.tensors);
  std::vector<double> reference_norms(h.tracked ? h.tensors : 0);
  read(numel.data(), 8 * numel.size());
  read(first.data(), 8 * first.size());
  read(reference_norms.data(), 8 * reference_norms.size());
  std::vector<Segment> segments(h.tensors);
  std::vector<Array> changed;
  std::vector<Array> references;
  std::vector<void*> grads;
  changed.reserve(7 * h.tensors);
  references.reserve(h.tensors);
  const auto array = [&](bool exists, int64_t count, size_t size) {
    return changed.emplace_back(exists, count, size).data();
  };
  for (int64_t i = 0; i < h.tensors; ++i) {
    Segment& s = segments[i];
    s.numel = numel[i];
    s.theta = array(true, s.numel, weight);
    grads.push_back(array(true, s.numel, weight));
    s.compensation = array(h.compensated, s.numel, weight);
    s.momentum = array(h.buffered, s.numel, size_of(names.momentum));
    s.variance = array(h.squared, s.numel, size_of_real(names.weight));
    s.steps = static_cast<float*>(array(h.counted, 1, sizeof(float)));
    s.distance = static_cast<double*>(array(h.measured, 1, sizeof(double)));
    s.reference = references.emplace_back(h.tracked, s.numel, size_of(names.reference)).data();
  }
  const Partition partition = make_partition(std::move(segments), h.joint_norm, kCpuChunk);
  const std::vector<char> flags(first.begin(), first.end());
  CpuStep step;
  step.partition = &partition;
  step.reference_norms = reference_norms.data();
  step.grads = grads.data();
  step.first_step = reinterpret_cast<const bool*>(flags.data());
  step.verify = h.verify != 0;
  step.threads = static_cast<int>(h.threads);
  step.grad_scale = h.grad_scale;
  step.options = options_of(h);
  cpu_launch(names)(step);
  for (const Array& a : changed) a.send();
  fflush(stdout);
}

}  // namespace

int main() {
  Header header;
  while (read(&header, sizeof header)) take_step(header);
}
