// SPDX-License-Identifier: Apache-2.0
//
// How a step is spread over cores. Large units are taken one after the other by all cores, so that
// the projection's second sweep finds theta still in the shared cache; small ones whole by one
// core.
#include "cpu/step.h"

#include <cmath>

#include "cpu/parallel.h"
#include "cpu/sweeps.h"

namespace d3 {
namespace {

// Fewer elements than this are not worth waking the other cores for.
constexpr int64_t kSharedUnit = 1 << 17;

// Runs tasks one after the other, or spread over threads: the same code serves both kinds of unit.
struct Team {
  int threads;
  template <class Task>
  void run(int64_t count, const Task& task) const {
    parallel_for(count, threads, task);
  }
};

template <class K>
class Stepper {
  using T = typename K::T;
  using W = typename K::Weight;

 public:
  explicit Stepper(const CpuStep& step)
      : step_(step), cut_(*step.cut), options_(step.options), sweeps_(sweeps()) {
    const StepOptions& o = options_;
    scalars_ = {static_cast<T>(o.lr), static_cast<T>(o.momentum), static_cast<T>(o.weight_decay),
                o.maximize ? T(-1) : T(1), static_cast<T>(o.distance_weight)};
    momentum_ = momentum_of(o.momentum, o.nesterov);
    center_ = static_cast<Center>(o.center);
    tracked_ = !cut_.segments.empty() && cut_.segments[0].reference != nullptr;
    tracking_ = tracking_of(tracked_, o.distance_weight, o.p);
    carries_ = tracked_ && o.p == 2;
    mends_ = !needs_verification(momentum_, o.lr, o.weight_decay);
    verify_ = step.verify || !mends_;
    partial_.resize(cut_.chunks.size());
  }

  void run() {
    const Team all{step_.threads}, alone{1};
    if (!tracked_) {
      int64_t elements = 0;
      for (const Unit& unit : cut_.units) elements += unit.elements;
      const Team& team = elements >= kSharedUnit ? all : alone;
      team.run(static_cast<int64_t>(cut_.chunks.size()),
               [&](int64_t i) { update(cut_.chunks[i], 0); });
      return;
    }
    std::vector<const Unit*> small;
    int64_t elements = 0;
    for (const Unit& unit : cut_.units) {
      if (unit.elements >= kSharedUnit) {
        step_unit(unit, all);
      } else {
        small.push_back(&unit);
        elements += unit.elements;
      }
    }
    const Team& team = elements >= kSharedUnit ? all : alone;
    team.run(static_cast<int64_t>(small.size()), [&](int64_t i) { step_unit(*small[i], alone); });
  }

 private:
  Span<K> span(const Chunk& chunk) const {
    const Segment& s = cut_.segments[chunk.segment];
    const auto from = [&chunk](auto* first) { return first ? first + chunk.offset : nullptr; };
    return {from(static_cast<W*>(s.theta)),
            from(static_cast<W*>(s.compensation)),
            from(static_cast<const typename K::Reference*>(s.reference)),
            from(static_cast<W*>(step_.grads[chunk.segment])),
            from(static_cast<typename K::Momentum*>(s.momentum)),
            chunk.length};
  }

  T rate(const Chunk& chunk) const {
    return step_.fresh[chunk.segment] ? T(1) : static_cast<T>(1 - options_.dampening);
  }

  Sums update(const Chunk& chunk, T inverse) const {
    const Span<K> a = span(chunk);
    if (options_.grad_scale != 1) sweeps_.unscale(a, static_cast<T>(options_.grad_scale));
    return sweeps_.update(a, tracking_, momentum_, scalars_, rate(chunk), inverse);
  }

  // Runs sweep(chunk) on every chunk of the unit, keeps its sums, and adds them in chunk order.
  template <class Sweep>
  Sums sweep(const Unit& unit, const Team& team, const Sweep& sweep) {
    team.run(unit.chunks, [&](int64_t i) {
      partial_[unit.first_chunk + i] = sweep(cut_.chunks[unit.first_chunk + i]);
    });
    Sums sums;
    for (int64_t i = 0; i < unit.chunks; ++i) sums.add(partial_[unit.first_chunk + i]);
    return sums;
  }

  double carried(const Unit& unit) const {
    double squared = 0;
    for (int64_t i = 0; i < unit.segments; ++i) {
      const double d = *cut_.segments[unit.first_segment + i].distance;
      squared += d * d;
    }
    return std::sqrt(squared);
  }

  double distance_before(const Unit& unit, const Team& team) {
    const double handed = carried(unit);
    if (!verify_) return handed;
    double weight = 0;
    for (int64_t i = 0; i < unit.segments; ++i) {
      const double r = step_.reference_norms[unit.first_segment + i];
      weight += r * r;
    }
    const Sums sums = sweep(unit, team, [&](const Chunk& chunk) {
      Sums s;
      s.before = sweeps_.squared_distance(span(chunk));
      return s;
    });
    const double actual = std::sqrt(sums.before);
    // A norm that is right keeps its bits: resuming from a checkpoint repeats the run exactly.
    return !(handed >= 0) || stale(unit, handed, actual, weight) ? actual : handed;
  }

  // weight: sum of theta^2, about.
  bool stale(const Unit& unit, double handed, double actual, double weight) const {
    return is_stale<T>(handed, actual, storing_error<W>(std::sqrt(weight), unit.elements));
  }

  void step_unit(const Unit& unit, const Team& team) {
    const bool pushed = tracking_ == Tracking::pushed_p2;
    const double handed = pushed ? distance_before(unit, team) : 0;
    const T inverse = inverse_distance<T>(handed);
    Sums sums = sweep(unit, team, [&](const Chunk& chunk) { return update(chunk, inverse); });
    const double actual = std::sqrt(sums.before);
    if (pushed && mends_ && stale(unit, handed, actual, sums.weight)) {
      const T right = inverse_distance<T>(actual);
      sums = sweep(unit, team, [&](const Chunk& chunk) {
        return sweeps_.mend(span(chunk), momentum_, scalars_, rate(chunk), inverse, right);
      });
    }
    const double c = projection_coefficient<T>(shell(unit), sums);
    if (c != 1) {
      // Backwards: the elements updated last are the ones still in cache.
      team.run(unit.chunks, [&](int64_t i) {
        const Chunk& chunk = cut_.chunks[unit.first_chunk + unit.chunks - 1 - i];
        sweeps_.rescale(span(chunk), center_, static_cast<T>(c));
      });
    }
    if (carries_) hand_over(unit, c);
  }

  Shell shell(const Unit& unit) const {
    double scale = 1;
    if (options_.relative) {
      double squared = 0;
      for (int64_t i = 0; i < unit.segments; ++i) {
        const double r = step_.reference_norms[unit.first_segment + i];
        squared += r * r;
      }
      scale = std::sqrt(squared);
    }
    Shell shell;
    shell.center = center_;
    shell.lower = options_.lower * scale;
    if (std::isfinite(options_.upper)) shell.upper = options_.upper * scale;
    return shell;
  }

  void hand_over(const Unit& unit, double c) {
    for (int64_t i = unit.first_segment; i < unit.first_segment + unit.segments; ++i) {
      const Segment& segment = cut_.segments[i];
      Sums sums;
      for (int64_t k = 0; k < segment.chunks; ++k) sums.add(partial_[segment.first_chunk + k]);
      *segment.distance = distance_after(center_, c, sums);
    }
  }

  const CpuStep& step_;
  const Cut& cut_;
  const StepOptions& options_;
  const Sweeps<K>& sweeps_;
  Scalars<T> scalars_;
  Momentum momentum_;
  Center center_;
  Tracking tracking_;
  bool tracked_, carries_, mends_, verify_;
  std::vector<Sums> partial_;
};

}  // namespace

CpuStepper cpu_stepper(const Dtypes& types) {
  CpuStepper found = nullptr;
  visit_storage(CpuStorages(), types, [&found](auto storage) {
    found = [](const CpuStep& step) { Stepper<decltype(storage)>(step).run(); };
  });
  return found;
}

}  // namespace d3
