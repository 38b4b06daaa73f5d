// SPDX-License-Identifier: Apache-2.0
//
// The rule that moves weights, as the kernels see it: the arrays that it keeps beside the weights,
// the numbers that it reads once per chunk, and two functions of one element from step_math.h.
#pragma once

#include "cuda/arguments.cuh"

namespace d3 {

template <Momentum kMomentum>
class SgdRule {
 public:
  static constexpr int kStates = kMomentum == Momentum::none ? 0 : 1;

  __device__ SgdRule(const DeviceStep& step, const Chunk& chunk)
      : scalars_(step.scalars),
        rate_(grad_entry(step, chunk.segment).first_step ? 1.0f : step.rate) {
    if (step.options.lr.device != nullptr) {
      scalars_.lr = static_cast<float>(value_of(step.options.lr));
    }
  }

  // Whether a push with a stale norm can be undone; where not, norms are verified before the step.
  static __device__ bool corrects(const DeviceStep& step) {
    return !needs_verification(kMomentum, value_of(step.options.lr), step.options.weight_decay);
  }

  // The updated weight; reads and writes state.
  template <Push kPush>
  D3_DEVICE float update(float theta, float delta, float grad, float* state, float inverse) const {
    return update_element<float, kPush, kMomentum>(theta, delta, grad, state[0], scalars_, rate_,
                                                   inverse);
  }

  // The same, as if `right` had been the inverse distance of the update and not `stale`.
  D3_DEVICE float correct(float theta, float reference, float grad, float* state, float stale,
                          float right) const {
    return correct_stale_norm<float, kMomentum>(theta, reference, grad, state[0], scalars_, rate_,
                                                stale, right);
  }

 private:
  Scalars<float> scalars_;
  float rate_;
};

}  // namespace d3
