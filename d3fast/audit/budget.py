# SPDX-License-Identifier: Apache-2.0
"""A plan that fits a number of minutes: what costs time is measured first, then cut, and said.

plan_inspection   measures a short search for triggers; fewer classes, then fewer steps
plan_repair       measures one epoch; fewer epochs
"""

import time
from collections.abc import Callable
from dataclasses import replace

from d3fast.audit.detectors.differential import DifferentialShift
from d3fast.audit.detectors.margin import MaximumMargin
from d3fast.audit.detectors.scores import MIN_CLASSES
from d3fast.audit.detectors.shift import SharedShift
from d3fast.audit.detectors.wave import DifferentialWave
from d3fast.audit.inspect import InspectOptions
from d3fast.audit.inversion import InversionOptions, invert_all
from d3fast.audit.repair import Repair
from d3fast.audit.resolve import Audit, images_of
from d3fast.detox import D3Config, detoxify
from d3fast.detox.config import SEARCHES
from d3fast.runtime.devices import resolve_device, synchronize

_FORWARD = 1 / 3  # of the time of a forward and a backward pass
_FEWEST_CLASSES, _FEWEST_STEPS = 20, 20  # of fewer, an outlier or a patch says little
_PROBE = InversionOptions(steps=2, round_steps=1, batch_size=16)
_BATCH = 250


def _timed(work: Callable[[], object], audit: Audit) -> float:
    """Return the seconds of some work on the device of an audit."""
    device = resolve_device(None, audit.model)
    synchronize(device)
    started = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - started


def _images_per_class(options: InspectOptions, samples: int) -> float:
    """Return how many images go forward and backward for each class that is searched."""
    once = _FORWARD * min(samples, options.samples)  # a result is measured on all samples
    costs = {
        "patch": options.inversion.steps * options.inversion.batch_size + once,
        "shift": SharedShift.steps * SharedShift.batch_size + once,
        "margin": MaximumMargin.steps * MaximumMargin.starts,
        "differential": (1 + DifferentialShift.repairs)
        * DifferentialShift.steps
        * DifferentialShift.batch_size,
        "wave": _FORWARD
        * (1 + DifferentialWave.repairs)
        * DifferentialWave.kept
        * min(samples, DifferentialWave.samples),
    }
    return sum(cost for name, cost in costs.items() if name in options.for_images())


def _images_of_repairs(options: InspectOptions, samples: int) -> int:
    """Return how many images go forward and backward in the repairs of detectors."""
    epochs = {
        "differential": DifferentialShift.repairs * DifferentialShift.epochs,
        "wave": DifferentialWave.repairs * DifferentialWave.epochs,
    }
    names = options.for_images()
    return min(samples, options.samples) * sum(epochs[name] for name in names if name in epochs)


def fit_inspection(
    options: InspectOptions, classes: int, samples: int, seconds_per_image: float, budget: float
) -> tuple[InspectOptions, tuple[str, ...]]:
    """Return options of an inspection that takes no longer than a budget, and what was cut.

    Args:
        options: wanted.
        classes: of the model.
        samples: number of clean samples.
        seconds_per_image: forward and backward.
        budget: in seconds.

    Example:
        >>> chosen, cut = fit_inspection(InspectOptions(), 1000, 500, 1e-3, 60.0)
        >>> chosen.classes, len(cut)
        (21, 1)
    """
    wanted, cut = min(classes, options.classes), []

    once = _images_of_repairs(options, samples) * seconds_per_image

    def cost(chosen: InspectOptions, count: int) -> float:
        return once + count * _images_per_class(chosen, samples) * seconds_per_image

    count = wanted
    if cost(options, wanted) > budget:
        each = cost(options, 1) - once
        affordable = int(max(0.0, budget - once) / each) if each else wanted
        count = max(affordable, min(wanted, _FEWEST_CLASSES))
        options = replace(options, classes=max(count, MIN_CLASSES))
    if count < wanted:
        cut.append(f"triggers are searched for {count} classes instead of {wanted:,}")
    steps = options.inversion.steps
    if "patch" in options.for_images() and cost(options, count) > budget:
        over = cost(options, count) - budget
        spare = over / (count * options.inversion.batch_size * seconds_per_image)
        fewer = max(int(steps - spare), min(steps, _FEWEST_STEPS))
        if fewer < steps:
            options = replace(options, inversion=replace(options.inversion, steps=fewer))
            cut.append(f"inversions take {fewer} steps instead of {steps}")
    if cost(options, count) > 1.1 * budget:
        minutes = cost(options, count) / 60
        cut.append(f"the shortest inspection is estimated at {minutes:.1f} minutes")
    return options, tuple(cut)


def plan_inspection(
    audit: Audit, options: InspectOptions, budget: float
) -> tuple[InspectOptions, tuple[str, ...]]:
    """Measure a short search for triggers and fit an inspection into a budget.

    Args:
        audit: the suspect and its clean samples.
        options: wanted.
        budget: in seconds, the measurement included.

    Returns:
        The options to take, and what was cut, one clause each.

    Raises:
        ValueError: what ``invert_all`` raises.
    """
    if audit.task == "text":
        return options, ("nothing is cut in the search for tokens: its time is not estimated",)
    data = images_of(audit.data)
    probed = range(min(len(data.classes), _PROBE.classes_at_once))
    few = data.subset(data.labels.cpu().argsort()[:: max(1, len(data) // _BATCH)])

    def search() -> object:
        loader = few.batches(_BATCH)
        return invert_all(audit.model, loader, probed, options=_PROBE, progress=False)

    search()  # the first passes choose algorithms and allocate
    taken = _timed(search, audit)
    images = len(probed) * (_PROBE.steps * _PROBE.batch_size + _FORWARD * len(few))
    return fit_inspection(options, len(data.classes), len(data), taken / images, budget - 2 * taken)


def fit_epochs(config: D3Config, seconds: float, budget: float) -> tuple[D3Config, tuple[str, ...]]:
    """Return the configuration of a repair that fits a budget, and what was cut.

    Args:
        config: wanted.
        seconds: of an epoch.
        budget: in seconds.

    Example:
        >>> chosen, cut = fit_epochs(D3Config.auto(), seconds=10.0, budget=400.0)
        >>> chosen.epochs, chosen.recovery, cut
        (12, 7, ('a repair takes at most 12 epochs instead of 50, and 7 of recovery',))
    """
    # An automatic restart compares at least two repairs: none, and the deepest.
    repairs = 2 if config.restart in SEARCHES else 1
    recovery = config.recovery if config.max_acc_drop is not None else 0
    share = max(0.0, budget) / (seconds * repairs * (config.epochs + recovery))
    if share >= 1:
        return config, ()
    epochs, after = max(1, int(share * config.epochs)), int(share * recovery)
    cut = f"a repair takes at most {epochs} epochs instead of {config.epochs}"
    cut += f", and {after} of recovery" if recovery else ""
    return replace(config, epochs=epochs, recovery=after), (cut,)


def plan_repair(repair: Repair, budget: float) -> tuple[Repair, tuple[str, ...]]:
    """Measure one epoch and fit the epochs of a repair into a budget.

    Args:
        repair: of ``prepare_repair``.
        budget: in seconds, the measurement included.

    Returns:
        The repair to run, and what was cut, one clause each.

    Raises:
        ValueError: what ``detoxify`` raises.
    """
    options = repair.options
    restart = 0 if options.config.restart in SEARCHES else options.config.restart
    once = replace(
        options.config, epochs=1, patience=0, max_acc_drop=None, recovery=0, restart=restart
    )
    states = [each.get_state() for each in repair.samples.generators]
    held_out = repair.parts[1].batches(_BATCH)

    def epoch() -> object:
        loader = repair.samples.loader
        return detoxify(repair.audit.model, loader, once, held_out, progress=False)

    taken = _timed(epoch, repair.audit)
    for each, state in zip(repair.samples.generators, states, strict=True):
        each.set_state(state)
    config, cut = fit_epochs(options.config, taken, budget - taken)
    return replace(repair, options=replace(options, config=config)), cut
