// SPDX-License-Identifier: Apache-2.0
//
// The rules that move weights, as the kernels see them: the number of arrays that a rule keeps
// beside the weights, the blocks per SM that leave it enough registers, the numbers that it reads
// once per chunk, and two functions of one element from step_math.h.
#pragma once

#include "cuda/arguments.cuh"

namespace d3 {

// Three blocks per SM leave 80 registers; for sm_120 the compiler would spill a few of them.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
constexpr int kStepBlocks = 2;
#else
constexpr int kStepBlocks = 3;
#endif

template <UpdateRule kRule>
class SgdRule {
 public:
  static constexpr int kStates = kRule == UpdateRule::sgd ? 0 : 1;
  static constexpr int kBlocks = kStepBlocks;

  __device__ SgdRule(const DeviceStep& step, const Chunk& chunk)
      : scalars_(step.scalars),
        rate_(grad_entry(step, chunk.segment).first_step ? 1.0f : step.rate) {
    if (step.options.lr.device != nullptr) {
      scalars_.lr = static_cast<float>(value_of(step.options.lr));
    }
  }

  // Whether a push with a stale norm can be undone; where not, norms are verified before the step.
  static __device__ bool corrects(const DeviceStep& step) {
    return !needs_verification(kRule, value_of(step.options.lr), step.options.weight_decay);
  }

  // The updated weight; reads and writes the buffers.
  template <Push kPush>
  D3_DEVICE float update(float theta, float delta, float grad, Buffers<float>& b,
                         float inverse) const {
    return update_element<float, kPush, kRule>(theta, delta, grad, b.momentum, scalars_, rate_,
                                               inverse);
  }

  // The same, as if `right` had been the inverse distance of the update and not `stale`.
  D3_DEVICE float correct(float theta, float reference, float grad, Buffers<float>& b, float stale,
                          float right) const {
    return correct_stale_norm<float, kRule>(theta, reference, grad, b.momentum, scalars_, rate_,
                                            stale, right);
  }

 private:
  Scalars<float> scalars_;
  float rate_;
};

// count_kernel has counted the present step before any chunk is updated.
class AdamwRule {
 public:
  static constexpr int kStates = 2;
  static constexpr int kBlocks = 2;

  __device__ AdamwRule(const DeviceStep& step, const Chunk& chunk) : scalars_(step.scalars) {
    const StepOptions& o = step.options;
    const double lr = value_of(o.lr), taken = *step.memory.segments[chunk.segment].steps - 1;
    if (o.lr.device != nullptr) scalars_ = scalars_of<float>(o, lr);
    rates_ = rates_of<float>(o, lr, false, taken);
  }

  static __device__ bool corrects(const DeviceStep& step) {
    return !needs_verification(UpdateRule::adamw, value_of(step.options.lr),
                               step.options.weight_decay);
  }

  template <Push kPush>
  D3_DEVICE float update(float theta, float delta, float grad, Buffers<float>& b,
                         float inverse) const {
    return update_adamw<float, kPush>(theta, delta, grad, b, scalars_, rates_, inverse);
  }

  D3_DEVICE float correct(float theta, float reference, float grad, Buffers<float>& b, float stale,
                          float right) const {
    return correct_stale_adamw(theta, reference, grad, b, scalars_, rates_, stale, right);
  }

 private:
  Scalars<float> scalars_;
  Rates<float> rates_;
};

}  // namespace d3
