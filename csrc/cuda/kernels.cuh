// SPDX-License-Identifier: Apache-2.0
//
// The update of the CUDA backend. A block takes one chunk at a time. Sums go through a
// shared-memory tree in a fixed order; the block that finishes a unit last (a ticket counts them)
// adds the chunks' sums in chunk order, mends the step if the norm it was given proves stale, and
// decides the projection, which `persistent.cuh` carries out in the same launch. Nothing is read
// back by the host. The files need no CUDA header, so that the tests can run them on the host.
#pragma once

#include "cuda/access.cuh"
#include "cuda/launch.h"
#include "plan.h"
#include "step_math.h"
#include "stored.h"

namespace d3 {

constexpr int kThreads = 256;         // per block, a power of two
constexpr int64_t kCudaChunk = 8192;  // elements per chunk
constexpr int64_t kFewChunks = 32;    // so many one thread adds faster than a block does

// What a unit keeps between kernels and steps; zero before the first step.
struct UnitState {
  double handed;       // D before the coming step
  double c;            // projection coefficient of this step
  unsigned finished;   // updated chunks, back to zero with the last
  unsigned ready;      // c is that of this step
  unsigned projected;  // chunks that have read c; the last one takes `ready` back
  unsigned padding;
};

// Which item of the order is taken next, and how many blocks found none left; zero between steps.
struct Queue {
  unsigned next;
  unsigned done;
};

// One entry per segment, renewed when a gradient moves.
struct GradEntry {
  void* grad;     // [numel]
  int64_t fresh;  // 1 where the momentum buffer holds no step yet
};

// The arguments of every kernel. All pointers are device pointers.
struct DeviceStep {
  const Segment* segments;
  const Unit* units;
  const Chunk* chunks;
  const GradEntry* grads;         // [segments]
  const double* reference_norms;  // [segments], null where untracked
  Sums* partial;                  // [chunks]
  UnitState* states;              // [units]
  const int64_t* order;           // [items], see `order.h`
  int64_t items;
  Queue* queue;
  DeviceScalar lr, lower, upper;
  const float* grad_scale;  // [1] or null
  const float* found_inf;   // [1] or null
  StepOptions options;
};

__device__ inline double option(const DeviceScalar& scalar, double given) {
  if (scalar.at == nullptr) return given;
  if (scalar.wide) return *static_cast<const double*>(scalar.at);
  return *static_cast<const float*>(scalar.at);
}

__device__ inline bool skipped(const DeviceStep& step) {
  return step.found_inf != nullptr && *step.found_inf != 0;
}

__device__ inline Scalars<float> scalars_of(const DeviceStep& step) {
  const StepOptions& o = step.options;
  return {static_cast<float>(option(step.lr, o.lr)), static_cast<float>(o.momentum),
          static_cast<float>(o.weight_decay), o.maximize ? -1.0f : 1.0f,
          static_cast<float>(o.distance_weight)};
}

// One chunk; compensation, reference, momentum and grad may be null.
template <class K>
struct Arrays {
  using W = typename K::Weight;
  static constexpr int N = kElements<K>;
  W* theta;
  W* compensation;
  const typename K::Reference* reference;
  W* grad;
  typename K::Momentum* momentum;
  int64_t n;
  bool aligned;

  template <Read R, class S>
  __device__ Run<N> load(const S* p, int64_t at) const {
    return load_run<N, R>(p, at, n, aligned);
  }
  template <class S>
  __device__ void store(S* p, int64_t at, const Run<N>& run) const {
    store_run<N>(p, at, n, aligned, run);
  }

  // The weights, with their remainders where these are kept: as `whole_weight` has it.
  template <bool kTracked, Read R>
  __device__ Run<N> load_weights(int64_t at) const {
    Run<N> x = load<R>(theta, at);
    if constexpr (kTracked && Stored<W>::kHalf) {
      const Run<N> c = load<R>(compensation, at);
      for (int k = 0; k < N; ++k) x.x[k] = whole_weight<W>(x.x[k], c.x[k]);
    }
    return x;
  }
  template <bool kTracked>
  __device__ void store_weights(int64_t at, const Run<N>& x) const {
    store(theta, at, x);
    if constexpr (kTracked && Stored<W>::kHalf) {
      Run<N> c;
      for (int k = 0; k < N; ++k) c.x[k] = x.x[k] - widen(narrow<W>(x.x[k]));
      store(compensation, at, c);
    }
  }
};

template <class S>
__device__ inline S* from(S* first, int64_t offset) {
  return first == nullptr ? nullptr : first + offset;
}

template <class K>
__device__ inline Arrays<K> arrays_of(const DeviceStep& step, const Chunk& chunk) {
  using W = typename K::Weight;
  const Segment& s = step.segments[chunk.segment];
  Arrays<K> a;
  a.theta = from(static_cast<W*>(s.theta), chunk.offset);
  a.compensation = from(static_cast<W*>(s.compensation), chunk.offset);
  a.reference = from(static_cast<const typename K::Reference*>(s.reference), chunk.offset);
  a.momentum = from(static_cast<typename K::Momentum*>(s.momentum), chunk.offset);
  a.grad =
      step.grads ? from(static_cast<W*>(step.grads[chunk.segment].grad), chunk.offset) : nullptr;
  a.n = chunk.length;
  a.aligned = aligned16(a.theta) && aligned16(a.compensation) && aligned16(a.reference) &&
              aligned16(a.momentum) && aligned16(a.grad);
  return a;
}

// Adds the threads' sums in a fixed tree; every thread gets the result.
__device__ inline Sums block_total(const Sums& mine) {
  __shared__ Sums tree[kThreads];
  const int t = static_cast<int>(threadIdx.x);
  __syncthreads();  // an earlier call's readers are done
  tree[t] = mine;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (t < half) tree[t].add(tree[t + half]);
    __syncthreads();
  }
  return tree[0];
}

// Sums written by other blocks: read past the first-level cache, which does not see them.
__device__ inline Sums load_sums(const Sums* p) {
  Sums s;
  s.before = __ldcg(&p->before);
  s.after = __ldcg(&p->after);
  s.weight = __ldcg(&p->weight);
  s.inner = __ldcg(&p->inner);
  return s;
}

// The sums of a run of chunks, added by the whole block.
__device__ inline Sums total(const DeviceStep& step, int64_t first, int64_t count) {
  Sums mine;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) {
    mine.add(load_sums(step.partial + first + i));
  }
  return block_total(mine);
}

__device__ inline Sums unit_total(const DeviceStep& step, const Unit& unit) {
  return total(step, unit.first_chunk, unit.chunks);
}

// Calls use(segment, its sums) in one thread per segment of the unit. The sums of a large segment
// are added by all threads: thousands of loads, one after the other, would outlast the sweep.
template <class Use>
__device__ inline void each_segment(const DeviceStep& step, const Unit& unit, const Sums& of_unit,
                                    const Use& use) {
  if (unit.segments == 1) {
    if (threadIdx.x == 0) use(step.segments[unit.first_segment], of_unit);
    return;
  }
  for (int64_t i = 0; i < unit.segments; ++i) {
    const Segment& segment = step.segments[unit.first_segment + i];
    if (segment.chunks <= kFewChunks) continue;
    const Sums sums = total(step, segment.first_chunk, segment.chunks);
    if (threadIdx.x == 0) use(segment, sums);
  }
  for (int64_t i = threadIdx.x; i < unit.segments; i += kThreads) {
    const Segment& segment = step.segments[unit.first_segment + i];
    if (segment.chunks > kFewChunks) continue;
    Sums sums;
    for (int64_t k = 0; k < segment.chunks; ++k) {
      sums.add(load_sums(step.partial + segment.first_chunk + k));
    }
    use(segment, sums);
  }
}

// sqrt of the sum of squares of one double per segment of the unit; null counts as 0.
template <class Get>
__device__ double segment_norm(const Unit& unit, const Get& get) {
  Sums mine;
  for (int64_t i = threadIdx.x; i < unit.segments; i += kThreads) {
    const double x = get(unit.first_segment + i);
    mine.before += x * x;
  }
  return sqrt(block_total(mine).before);
}

// Publishes this chunk's sums; true in every thread of the block that completes the unit.
__device__ inline bool completes_unit(const DeviceStep& step, int64_t index, const Sums& sums) {
  __shared__ bool last;
  const Chunk& chunk = step.chunks[index];
  if (threadIdx.x == 0) {
    step.partial[index] = sums;
    __threadfence();
    UnitState& state = step.states[chunk.unit];
    const unsigned before = atomicAdd(&state.finished, 1u);
    last = before + 1 == static_cast<unsigned>(step.units[chunk.unit].chunks);
    if (last) state.finished = 0;
  }
  __syncthreads();
  const bool mine = last;
  if (mine) __threadfence();
  return mine;
}

__device__ inline void measure(Sums& sums, float was, float is, float reference) {
  const double r = reference, w = is;
  const double old = static_cast<double>(was) - r, delta = w - r;
  sums.before += old * old;
  sums.after += delta * delta;
  sums.weight += w * w;
  sums.inner += delta * w;
}

__device__ inline float rate_of(const DeviceStep& step, const Chunk& chunk) {
  return step.grads[chunk.segment].fresh ? 1.0f : static_cast<float>(1 - step.options.dampening);
}

template <class K>
__device__ inline bool stale(const Unit& unit, double handed, double actual, double weight_norm) {
  const double rounding = storing_error<typename K::Weight>(weight_norm, unit.elements);
  return is_stale<float>(handed, actual, rounding);
}

// Before the step, where norms may be wrong: measures them and settles on what to hand to `update`.
// Runs on overflow too: it moves no weight, and the host takes the norms as verified from here on.
template <class K>
__global__ void __launch_bounds__(kThreads) verify_kernel(const DeviceStep step) {
  constexpr int N = kElements<K>;
  const int64_t index = blockIdx.x;
  const Arrays<K> a = arrays_of<K>(step, step.chunks[index]);
  Sums mine;
  for (int64_t at = N * static_cast<int64_t>(threadIdx.x); at < a.n; at += N * kThreads) {
    const Run<N> theta = a.template load_weights<true, Read::stays>(at);
    const Run<N> reference = a.template load<Read::stays>(a.reference, at);
    for (int k = 0; k < N; ++k) {
      const double delta = static_cast<double>(theta.x[k]) - static_cast<double>(reference.x[k]);
      mine.before += delta * delta;
    }
  }
  if (!completes_unit(step, index, block_total(mine))) return;
  const Unit& unit = step.units[step.chunks[index].unit];
  const Sums sums = unit_total(step, unit);
  const double actual = sqrt(sums.before);
  const double handed = segment_norm(unit, [&](int64_t i) { return *step.segments[i].distance; });
  const double weight = segment_norm(unit, [&](int64_t i) { return step.reference_norms[i]; });
  // A norm that is right keeps its bits: resuming from a checkpoint repeats the run exactly.
  const bool wrong = !(handed >= 0) || stale<K>(unit, handed, actual, weight);
  if (wrong) {
    each_segment(step, unit, sums, [](const Segment& segment, const Sums& own) {
      *segment.distance = sqrt(own.before);
    });
  }
  if (threadIdx.x == 0) {
    step.states[step.chunks[index].unit].handed = wrong ? actual : handed;
  }
}

// Rare: all chunks of a unit whose norm was stale, by the one block that noticed.
template <class K, Momentum M>
__device__ Sums mend_unit(const DeviceStep& step, const Unit& unit, float stale, float right) {
  using W = typename K::Weight;
  const Scalars<float> s = scalars_of(step);
  for (int64_t i = unit.first_chunk; i < unit.first_chunk + unit.chunks; ++i) {
    const Arrays<K> a = arrays_of<K>(step, step.chunks[i]);
    const float rate = rate_of(step, step.chunks[i]);
    Sums mine;
    // Element by element and past the first-level cache: other blocks wrote these.
    const auto get = [](const auto* p) { return widen(read_one<Read::others>(p)); };
    for (int64_t at = threadIdx.x; at < a.n; at += kThreads) {
      float v = 0, theta = get(a.theta + at);
      if constexpr (M != Momentum::none) v = get(a.momentum + at);
      if constexpr (Stored<W>::kHalf) theta = whole_weight<W>(theta, get(a.compensation + at));
      const float reference = widen(a.reference[at]);
      const float next =
          mend<float, M>(theta, reference, get(a.grad + at), v, s, rate, stale, right);
      a.theta[at] = narrow<W>(next);
      if constexpr (Stored<W>::kHalf) {
        a.compensation[at] = narrow<W>(next - widen(narrow<W>(next)));
      }
      if constexpr (M != Momentum::none) a.momentum[at] = narrow<typename K::Momentum>(v);
      measure(mine, theta, next, reference);
    }
    const Sums sums = block_total(mine);
    if (threadIdx.x == 0) step.partial[i] = sums;
  }
  __threadfence();
  __syncthreads();
  return unit_total(step, unit);
}

__device__ inline Shell shell_of(const DeviceStep& step, const Unit& unit) {
  const StepOptions& o = step.options;
  Shell shell;
  shell.center = static_cast<Center>(o.center);
  if (shell.center == Center::none) return shell;
  const double scale =
      o.relative ? segment_norm(unit, [&](int64_t i) { return step.reference_norms[i]; }) : 1.0;
  const double upper = option(step.upper, o.upper);
  shell.lower = option(step.lower, o.lower) * scale;
  if (upper * 0 == 0) shell.upper = upper * scale;
  return shell;
}

// The last block of a unit: check the norm, decide the projection, hand the new norm on.
template <class K, Tracking T, Momentum M>
__device__ void finish_unit(const DeviceStep& step, int64_t unit_index) {
  const Unit& unit = step.units[unit_index];
  UnitState& state = step.states[unit_index];
  Sums sums = unit_total(step, unit);
  if constexpr (T == Tracking::pushed_p2) {
    const double handed = state.handed, actual = sqrt(sums.before);
    const double lr = option(step.lr, step.options.lr);
    // Where the update cannot be undone the norm was checked beforehand; what differs is rounding.
    if (!needs_verification(M, lr, step.options.weight_decay) &&
        stale<K>(unit, handed, actual, sqrt(sums.weight))) {
      sums = mend_unit<K, M>(step, unit, inverse_distance<float>(handed),
                             inverse_distance<float>(actual));
    }
  }
  const Shell shell = shell_of(step, unit);
  const double c = projection_coefficient<float>(shell, sums);
  Sums carried;
  if (step.options.p == 2) {
    each_segment(step, unit, sums, [&](const Segment& segment, const Sums& own) {
      const double distance = distance_after(shell.center, c, own);
      *segment.distance = distance;
      carried.before += distance * distance;
    });
  }
  const double handed_on = sqrt(block_total(carried).before);
  if (threadIdx.x == 0) {
    state.handed = handed_on;
    state.c = c;
    if (shell.center != Center::none) {
      __threadfence();  // c, and with it all that the other blocks wrote, before the sign
      atomicExch(&state.ready, 1u);
    }
  }
}

// The step of one chunk without its projection, by a whole block.
template <class K, Tracking T, Momentum M>
__device__ inline void update_chunk(const DeviceStep& step, int64_t index) {
  constexpr bool kTracked = T != Tracking::none;
  constexpr Push P = T == Tracking::pushed_p1   ? Push::p1
                     : T == Tracking::pushed_p2 ? Push::p2
                                                : Push::none;
  constexpr int N = kElements<K>, kUnroll = 8 / N;
  using W = typename K::Weight;
  const Chunk& chunk = step.chunks[index];
  const Arrays<K> a = arrays_of<K>(step, chunk);
  const Scalars<float> s = scalars_of(step);
  const float rate = rate_of(step, chunk);
  const float scale = step.grad_scale ? *step.grad_scale : 1.0f;
  float inverse = 0;
  if constexpr (P == Push::p2) inverse = inverse_distance<float>(step.states[chunk.unit].handed);
  Sums mine;
#pragma unroll kUnroll
  for (int64_t at = N * static_cast<int64_t>(threadIdx.x); at < a.n; at += N * kThreads) {
    Run<N> theta = a.template load_weights<kTracked, Read::stays>(at);
    Run<N> grad = a.template load<Read::passes>(a.grad, at);
    Run<N> reference = {}, v = {};
    if constexpr (kTracked) reference = a.template load<Read::passes>(a.reference, at);
    if constexpr (M != Momentum::none) v = a.template load<Read::passes>(a.momentum, at);
    for (int k = 0; k < N; ++k) {
      const float was = theta.x[k];
      if (scale != 1.0f) grad.x[k] = widen(narrow<W>(grad.x[k] / scale));  // as it is stored
      theta.x[k] =
          advance<float, P, M>(was, was - reference.x[k], grad.x[k], v.x[k], s, rate, inverse);
      if constexpr (kTracked) {
        if (at + k < a.n) measure(mine, was, theta.x[k], reference.x[k]);
      }
    }
    a.template store_weights<kTracked>(at, theta);
    if constexpr (M != Momentum::none) a.store(a.momentum, at, v);
    if (scale != 1.0f) a.store(a.grad, at, grad);
  }
  if constexpr (kTracked) {
    __threadfence();  // whoever mends or projects must see what this thread wrote
    if (completes_unit(step, index, block_total(mine))) finish_unit<K, T, M>(step, chunk.unit);
  }
}

// A step without projection, one block per chunk. Two blocks per SM are enough of a promise to
// leave the compiler the registers it needs, 80, of which three blocks fit: without it, it spills.
template <class K, Tracking T, Momentum M>
__global__ void __launch_bounds__(kThreads, 2) update_kernel(const DeviceStep step) {
  if (skipped(step)) return;
  update_chunk<K, T, M>(step, blockIdx.x);
}

}  // namespace d3
