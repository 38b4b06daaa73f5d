# SPDX-License-Identifier: Apache-2.0
"""The part of all callbacks that depends on no trainer: one ``Repair`` per training.

The trainer takes the steps with a ``D3FusedSGD`` or a ``D3FusedAdamW`` and a ``CleanLoss``.
``Repair`` does the rest of D3 (arXiv 2411.09585) between the steps: the warm start, a distance
schedule, dual ascent of lambda on held-out clean data, the accuracy limit, and their state in
checkpoints. A callback is a thin layer that calls it from its trainer's hooks.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from d3fast.optim import WARM_STARTS
from d3fast.optim.base import D3Optimizer
from d3fast.optim.schedules import DistanceSchedule, Value
from d3fast.runtime.checks import check_choice, check_integer, check_number
from d3fast.runtime.seeding import generator
from d3fast.training.loss import CleanLoss, dual_ascent


@dataclass(frozen=True)
class RepairOptions:
    """Options of a callback.

    Attributes:
        warm_start: initial position of the tracked weights: ``"near"``, ``"middle"``, ``"far"``,
            ``"noise"`` or ``"random"``.
        seed: seed of the warm start, as in ``D3Config``.
        schedule: makes a ``DistanceSchedule`` that is stepped once per epoch, for example
            ``functools.partial(DistanceSchedule, start=0.0, steps=10)``; no schedule if ``None``.
        dual_step: step eta of dual ascent, lambda <- max(0, lambda + eta (L - epsilon)) after
            every validation, L the validation cross-entropy; 0 keeps lambda. The distance weight
            is not normalized by (lambda + 1).
        max_acc_drop: stop when validation accuracy, after it has been within this many points of
            the suspect's, leaves that range; never stop if ``None``.
        suspect_acc: validation accuracy of the suspect in [0, 1]; measured before the warm start
            if ``None``.
        val_loss: name of the validation metric that is the mean cross-entropy, in nats.
        val_acc: name of the validation metric that is the accuracy, in [0, 1].

    Raises:
        ValueError: an option out of range.
    """

    warm_start: str = "random"
    seed: int = 0
    schedule: Callable[[D3Optimizer], DistanceSchedule] | None = None
    dual_step: float = 0.0
    max_acc_drop: float | None = None
    suspect_acc: float | None = None
    val_loss: str = "val_loss"
    val_acc: str = "val_acc"

    def __post_init__(self) -> None:
        check_choice("warm_start", self.warm_start, WARM_STARTS)
        check_integer("seed", self.seed, 0)
        check_number("dual_step", self.dual_step)
        if self.max_acc_drop is not None:
            check_number("max_acc_drop", self.max_acc_drop)
        if self.suspect_acc is not None:
            _check_share("suspect_acc", self.suspect_acc)

    @property
    def validates(self) -> bool:
        """Return whether validation data are needed."""
        return self.dual_step > 0 or self.max_acc_drop is not None


def find_optimizer(given: Any) -> D3Optimizer:
    """Return the one D3 optimizer that a trainer steps, without the trainer's wrapper.

    Args:
        given: an optimizer or a list of them.

    Raises:
        ValueError: another optimizer, none, or several.
    """
    optimizers = list(given) if isinstance(given, Sequence) else [given]
    bare = [_unwrapped(optimizer) for optimizer in optimizers]
    if len(bare) == 1 and isinstance(bare[0], D3Optimizer):
        return bare[0]
    names = ", ".join(type(optimizer).__name__ for optimizer in bare)
    raise ValueError(
        f"D3Callback needs one optimizer, a D3FusedSGD or D3FusedAdamW, got {names or 'none'}"
    )


def _unwrapped(optimizer: Any) -> Any:
    while not isinstance(optimizer, D3Optimizer):
        inner = getattr(optimizer, "optimizer", None)
        if not isinstance(inner, Optimizer):
            break
        optimizer = inner
    return optimizer


class Repair:
    """State of one repair between a trainer's steps.

    A trainer's hooks call, in this order: ``measure_suspect`` (where ``needs_suspect``),
    ``begin``, then ``begin_epoch`` and ``validated`` any number of times.

    Args:
        options: the options of the repair.
    """

    def __init__(self, options: RepairOptions) -> None:
        self.options = options
        self.suspect_acc = options.suspect_acc
        self.within = False
        self.optimizer: D3Optimizer | None = None
        self.loss: CleanLoss | None = None
        self.schedule: DistanceSchedule | None = None
        self._loaded: Mapping[str, Any] | None = None

    @property
    def needs_suspect(self) -> bool:
        """Return whether the suspect's accuracy has to be measured before the warm start."""
        return self.options.max_acc_drop is not None and self.suspect_acc is None

    def measure_suspect(self, metrics: Mapping[str, Any]) -> None:
        """Store the suspect's accuracy from the metrics of a validation before training."""
        name = self.options.val_acc
        self.suspect_acc = _check_share(name, _metric(metrics, name))

    def begin(self, optimizers: Any, loss: CleanLoss | None) -> None:
        """Start, or resume from a loaded state; do nothing while the optimizer is the same.

        Args:
            optimizers: the trainer's optimizers.
            loss: the loss whose weight is lambda; only dual ascent needs it.

        Raises:
            ValueError: an optimizer that is no D3 optimizer; dual ascent without a
                ``CleanLoss``; an accuracy limit without the suspect's accuracy.
        """
        optimizer = find_optimizer(optimizers)
        saved, self._loaded = self._loaded, None
        if saved is None and optimizer is self.optimizer:
            return
        if self.options.dual_step and loss is None:
            raise ValueError("dual_step > 0 moves the weight of a CleanLoss, and there is none")
        if saved is None and self.needs_suspect:
            raise ValueError(
                "max_acc_drop needs the suspect's accuracy, and it was not validated before the "
                "first step; give suspect_acc="
            )
        if saved is None:
            drawn = generator(self.options.seed, "warm start")
            optimizer.warm_start(self.options.warm_start, generator=drawn)
            self.within = False
        make = self.options.schedule
        self.optimizer, self.loss = optimizer, loss
        self.schedule = None if make is None else make(optimizer)
        if saved is not None:
            self._restore(saved)

    def _restore(self, saved: Mapping[str, Any]) -> None:
        if saved["suspect_acc"] is not None:
            self.suspect_acc = saved["suspect_acc"]
        self.within = saved["within"]
        if self.loss is not None and saved["clean_weight"] is not None:
            self.loss.weight = saved["clean_weight"]
        if self.schedule is not None and saved["schedule"] is not None:
            self.schedule.load_state_dict(saved["schedule"])

    def begin_epoch(self, epochs_done: int) -> None:
        """Step the schedule until it has made ``epochs_done`` steps.

        The start of an epoch is the place for it: a checkpoint may be taken between the last step
        of an epoch and its end, and a resumed trainer does not run that end again.
        """
        while self.schedule is not None and self.schedule.last_epoch < epochs_done:
            self.schedule.step()

    def validated(self, metrics: Mapping[str, Any]) -> bool:
        """Take one step of dual ascent and check the accuracy limit.

        Args:
            metrics: names and values of a validation, as the trainer keeps them.

        Returns:
            Whether the accuracy has left its range, so that training has to stop.

        Raises:
            ValueError: a metric that is missing or NaN; an accuracy outside [0, 1].
        """
        options = self.options
        if options.dual_step and self.loss is not None:
            loss = _metric(metrics, options.val_loss)
            self.loss.weight = dual_ascent(
                self.loss.weight, loss, self.loss.epsilon, options.dual_step
            )
        if options.max_acc_drop is None or self.suspect_acc is None:
            return False
        acc = _check_share(options.val_acc, _metric(metrics, options.val_acc))
        fits = 100 * (self.suspect_acc - acc) <= options.max_acc_drop + 1e-9  # 100 * 0.01 > 1
        left, self.within = self.within and not fits, self.within or fits
        return left

    def readings(self) -> dict[str, Tensor | float]:
        """Return what to log after an epoch: distances (0-dim tensors), lambda, the schedule."""
        if self.optimizer is None:
            return {}
        found: dict[str, Tensor | float] = {"d3/distance": self.optimizer.total_distance()}
        for name, distance in self.optimizer.distances().items():
            found[f"d3/distance/{name}"] = distance
        if self.loss is not None:
            found["d3/clean_weight"] = self.loss.weight
        if self.schedule is not None:
            found |= _named(f"d3/{self.schedule.what}", self.schedule.get_last_value())
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain numbers, which JSON represents exactly."""
        return {
            "suspect_acc": self.suspect_acc,
            "within": self.within,
            "clean_weight": None if self.loss is None else self.loss.weight,
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Store a state for the next ``begin``, which then resumes instead of starting.

        Raises:
            ValueError: a state without one of its entries, or with a value out of range.
        """
        given = {name: state_dict.get(name) for name in self.state_dict()}
        if not isinstance(given["within"], bool):
            raise ValueError(f"within must be true or false, got {given['within']!r}")
        if given["suspect_acc"] is not None:
            _check_share("suspect_acc", given["suspect_acc"])
            self.suspect_acc = given["suspect_acc"]
        if given["clean_weight"] is not None:
            check_number("clean_weight", given["clean_weight"])
        if given["schedule"] is not None and not isinstance(given["schedule"], Mapping):
            raise ValueError(f"schedule must be a mapping, got {given['schedule']!r}")
        self._loaded = given


def _named(what: str, values: Sequence[Value]) -> dict[str, float]:
    """Return a schedule's values by name: ``what_1`` for the second group, two per pair."""
    named = {}
    for index, value in enumerate(values):
        name = f"{what}_{index}" if index else what
        if isinstance(value, tuple):
            named[f"{name}/lower"], named[f"{name}/upper"] = value
        else:
            named[name] = value
    return named


def _metric(metrics: Mapping[str, Any], name: str) -> float:
    if name not in metrics:
        known = ", ".join(map(repr, metrics)) or "nothing"
        raise ValueError(f"the validation gives no metric {name!r}, it gives {known}")
    value = float(metrics[name])
    if not math.isfinite(value):
        raise ValueError(f"the validation metric {name!r} became {value}")
    return value


def _check_share(name: str, value: Any) -> float:
    check_number(name, value)
    if value > 1:
        raise ValueError(f"{name} must be a share in [0, 1], got {value!r}")
    return float(value)
