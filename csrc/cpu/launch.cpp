// SPDX-License-Identifier: Apache-2.0
//
// How a step is spread over cores. Large norm groups are processed one after the other by all
// cores, so that the projection's second pass finds theta still in the shared cache; small ones
// each by one core.
#include "cpu/launch.h"

#include <atomic>
#include <cmath>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/parallel.h"

namespace d3 {
namespace {

// Waking the other cores does not pay for fewer elements than this.
constexpr int64_t kSharedElements = 1 << 17;

// Runs tasks one after the other or spread over threads.
struct Team {
  int threads;
  template <class Task>
  void run(int64_t count, const Task& task) const {
    parallel_for(count, threads, task);
  }
};

template <class DTypes>
class Launch {
  using Real = typename DTypes::Real;
  using Weight = typename DTypes::Weight;

 public:
  explicit Launch(const CpuStep& step)
      : step_(step),
        partition_(*step.partition),
        options_(step.options),
        kernels_(kernels()),
        owners_(static_cast<int64_t>(partition_.chunks.size())) {
    const StepOptions& o = options_;
    const double lr = o.lr.value;
    scalars_ = scalars_of<Real>(o, lr);
    rule_ = rule_of(o);
    tracking_ = tracking_of(partition_.tracked(), o.distance_weight, o.p);
    corrects_ = !needs_verification(rule_, lr, o.weight_decay);
    verify_ = step.verify || !corrects_;
    partial_.resize(partition_.chunks.size());
  }

  bool run() {
    take_step();
    // A shard's step ends with its projection.
    if (options_.adamw && (step_.phase == Phase::whole || step_.phase == Phase::project)) {
      for (const Segment& segment : partition_.segments) *segment.steps += 1;
    }
    return corrected_;
  }

 private:
  void take_step() {
    const Team all{step_.threads}, alone{1};
    if (tracking_ == Tracking::none) {
      int64_t elements = 0;
      for (const NormGroup& group : partition_.norm_groups) elements += group.elements;
      const Team& team = elements >= kSharedElements ? all : alone;
      team.run(static_cast<int64_t>(partition_.chunks.size()),
               [&](int64_t i) { update(partition_.chunks[i], 0); });
      return;
    }
    std::vector<const NormGroup*> small;
    int64_t elements = 0;
    for (const NormGroup& group : partition_.norm_groups) {
      if (group.elements >= kSharedElements) {
        step_norm_group(group, all);
      } else {
        small.push_back(&group);
        elements += group.elements;
      }
    }
    const Team& team = elements >= kSharedElements ? all : alone;
    team.run(static_cast<int64_t>(small.size()),
             [&](int64_t i) { step_norm_group(*small[i], alone); });
  }

  ChunkArrays<DTypes> arrays(const Chunk& chunk) const {
    const Segment& s = partition_.segments[chunk.segment];
    const auto from = [&chunk](auto* first) { return first ? first + chunk.offset : nullptr; };
    return {from(static_cast<Weight*>(s.theta)),
            from(static_cast<Weight*>(s.compensation)),
            from(static_cast<const typename DTypes::Reference*>(s.reference)),
            from(static_cast<Weight*>(step_.grads[chunk.segment])),
            from(static_cast<typename DTypes::MomentumBuffer*>(s.momentum)),
            from(static_cast<Real*>(s.variance)),
            chunk.length};
  }

  Rates<Real> rates(const Chunk& chunk) const {
    const float* const steps = partition_.segments[chunk.segment].steps;
    return rates_of<Real>(options_, options_.lr.value, step_.first_step[chunk.segment],
                          steps == nullptr ? 0 : *steps);
  }

  Sums update(const Chunk& chunk, Real inverse) const {
    const ChunkArrays<DTypes> a = arrays(chunk);
    if (step_.grad_scale != 1) kernels_.unscale(a, static_cast<Real>(step_.grad_scale));
    return kernels_.update(a, tracking_, rule_, scalars_, rates(chunk), inverse);
  }

  // Runs kernel(chunk) on every chunk of the norm group, keeps its sums, and adds them in chunk
  // order, but for those that another rank counts.
  template <class Kernel>
  Sums accumulate(const NormGroup& group, const Team& team, const Kernel& kernel) {
    team.run(group.chunks, [&](int64_t i) {
      owners_.take(group.first_chunk + i);
      partial_[group.first_chunk + i] = kernel(partition_.chunks[group.first_chunk + i]);
    });
    Sums sums;
    for (int64_t i = group.first_chunk; i < group.first_chunk + group.chunks; ++i) {
      if (partition_.segments[partition_.chunks[i].segment].counts) sums.add(partial_[i]);
    }
    return sums;
  }

  // sqrt of the sum of number(segment index)^2 over the segments of the norm group.
  template <class Number>
  static double segment_norm(const NormGroup& group, const Number& number) {
    double squared = 0;
    for (int64_t i = 0; i < group.segments; ++i) {
      const double x = number(group.first_segment + i);
      squared += x * x;
    }
    return std::sqrt(squared);
  }

  double reference_norm(const NormGroup& group) const {
    return segment_norm(group, [this](int64_t i) { return step_.reference_norms[i]; });
  }

  double distance_before(const NormGroup& group, const Team& team) {
    const double cached =
        segment_norm(group, [this](int64_t i) { return *partition_.segments[i].distance; });
    if (!verify_) return cached;
    const Sums sums = accumulate(group, team, [&](const Chunk& chunk) {
      Sums s;
      s.before = kernels_.squared_distance(arrays(chunk));
      return s;
    });
    const double actual = std::sqrt(sums.before);
    // A norm that is right keeps its bits: resuming from a checkpoint repeats the run exactly.
    const bool wrong = !(cached >= 0) || stale(group, cached, actual, reference_norm(group));
    return wrong ? actual : cached;
  }

  // weight_norm: ||theta||, roughly.
  bool stale(const NormGroup& group, double cached, double actual, double weight_norm) const {
    return is_stale<Real>(cached, actual, rounding_of_norm<Weight>(weight_norm, group.whole));
  }

  bool pushed() const { return tracking_ == Tracking::pushed_p2; }

  void step_norm_group(const NormGroup& group, const Team& team) {
    if (step_.phase != Phase::whole) return step_shard(group, team);
    const double cached = pushed() ? distance_before(group, team) : 0;
    Sums sums = update_group(group, team, cached);
    if (is_stale_after(group, cached, sums)) sums = correct_group(group, team, cached, sums);
    const double c = project_group(group, team, sums);
    if (options_.p == 2) store_norm(group, c);
  }

  // One part of the step; every rank decides alike, from the same totals and the same norm.
  void step_shard(const NormGroup& group, const Team& team) {
    const int64_t index = &group - partition_.norm_groups.data();
    double* const norm = partition_.segments[group.first_segment].distance;
    const double cached = pushed() ? *norm : 0;
    if (step_.phase == Phase::update) {
      step_.sums[index] = update_group(group, team, cached);
      return;
    }
    const Sums& total = step_.totals[index];
    if (step_.phase == Phase::project) {
      const double c = project_group(group, team, total);
      if (options_.p == 2) *norm = distance_after(options_.center, c, total);
    } else if (is_stale_after(group, cached, total)) {
      step_.sums[index] = correct_group(group, team, cached, total);
      *norm = std::sqrt(total.before);
      corrected_ = true;
    }
  }

  // The step without its projection, its push made with the cached norm.
  Sums update_group(const NormGroup& group, const Team& team, double cached) {
    const Real inverse = inverse_distance<Real>(cached);
    return accumulate(group, team, [&](const Chunk& chunk) { return update(chunk, inverse); });
  }

  bool is_stale_after(const NormGroup& group, double cached, const Sums& sums) const {
    return pushed() && corrects_ &&
           stale(group, cached, std::sqrt(sums.before), std::sqrt(sums.weight));
  }

  Sums correct_group(const NormGroup& group, const Team& team, double cached, const Sums& sums) {
    const Real wrong = inverse_distance<Real>(cached);
    const Real right = inverse_distance<Real>(std::sqrt(sums.before));
    return accumulate(group, team, [&](const Chunk& chunk) {
      return kernels_.correct_stale_norm(arrays(chunk), rule_, scalars_, rates(chunk), wrong,
                                         right);
    });
  }

  // Returns the coefficient.
  double project_group(const NormGroup& group, const Team& team, const Sums& sums) {
    const double c = projection_coefficient<Real>(bounds(group), sums);
    if (c == 1) return c;
    const auto rescale = [&](int64_t i) {
      kernels_.rescale(arrays(partition_.chunks[i]), options_.center, static_cast<Real>(c));
    };
    // Backwards: the elements updated last are the ones still in cache.
    if (step_.phase == Phase::whole) {
      owners_.for_each(group.first_chunk, group.chunks, team.threads, rescale);
    } else {
      team.run(group.chunks, [&](int64_t i) { rescale(group.first_chunk + group.chunks - 1 - i); });
    }
    return c;
  }

  Bounds bounds(const NormGroup& group) const {
    const double unit = options_.relative ? reference_norm(group) : 1;
    return bounds_of(options_, options_.lower.value, options_.upper.value, unit);
  }

  void store_norm(const NormGroup& group, double c) {
    for (int64_t i = group.first_segment; i < group.first_segment + group.segments; ++i) {
      const Segment& segment = partition_.segments[i];
      Sums sums;
      for (int64_t k = 0; k < segment.chunks; ++k) sums.add(partial_[segment.first_chunk + k]);
      *segment.distance = distance_after(options_.center, c, sums);
    }
  }

  const CpuStep& step_;
  const Partition& partition_;
  const StepOptions& options_;
  const Kernels<DTypes>& kernels_;
  Scalars<Real> scalars_;
  UpdateRule rule_;
  Tracking tracking_;
  bool corrects_, verify_;
  std::vector<Sums> partial_;
  TaskOwners owners_;
  std::atomic<bool> corrected_{false};
};

}  // namespace

CpuLaunch cpu_launch(const DTypeNames& dtypes) {
  CpuLaunch found = nullptr;
  visit_dtypes(CpuDTypes(), dtypes, [&found](auto triple) {
    found = [](const CpuStep& step) { return Launch<decltype(triple)>(step).run(); };
  });
  return found;
}

}  // namespace d3
