# SPDX-License-Identifier: Apache-2.0
"""What the callbacks of all trainers do, without a trainer: one ``Repair`` per training.

The trainer takes the steps with a ``D3FusedSGD`` and a ``CleanLoss``. ``Repair`` does the rest of
D3 (arXiv 2411.09585) between them: the warm start, a distance schedule, dual ascent of lambda on
held-out clean data, the accuracy budget, and what a checkpoint has to keep of these. A callback
is a thin layer that calls it from its trainer's hooks.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from d3fast.optim import WARM_STARTS, D3FusedSGD
from d3fast.optim.schedules import DistanceSchedule, Value
from d3fast.runtime.checks import check_choice, check_integer, check_number
from d3fast.runtime.seeding import generator
from d3fast.training.loss import CleanLoss


@dataclass(frozen=True)
class RepairOptions:
    """What a callback does beside the trainer's own steps.

    Attributes:
        warm_start: where the tracked weights are put before the first step: ``"near"``,
            ``"middle"``, ``"far"``, ``"noise"`` or ``"random"``.
        seed: draws the warm start, as ``D3Config.seed`` does.
        schedule: makes a ``DistanceSchedule`` that is stepped once per epoch, for example
            ``functools.partial(DistanceSchedule, start=0.0, steps=10)``; none if ``None``.
        dual_step: step eta of dual ascent, lambda <- max(0, lambda + eta (L - epsilon)) after
            every validation, L the cross-entropy there; 0 keeps lambda. The distance weight
            stays as it is: nothing is divided by (lambda + 1).
        max_acc_drop: stop when validation accuracy, once it has been within so many points of
            the suspect's own, falls out again; never if ``None``.
        suspect_acc: the suspect's own validation accuracy in [0, 1]; measured before the warm
            start if ``None``.
        val_loss: name of the validation metric that is the mean cross-entropy, in nats.
        val_acc: name of the validation metric that is the accuracy, in [0, 1].

    Raises:
        ValueError: an option out of range.
    """

    warm_start: str = "random"
    seed: int = 0
    schedule: Callable[[D3FusedSGD], DistanceSchedule] | None = None
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
        """Whether validation data are needed."""
        return self.dual_step > 0 or self.max_acc_drop is not None


def find_optimizer(given: Any) -> D3FusedSGD:
    """The one ``D3FusedSGD`` that a trainer steps, taken out of the trainer's wrapper.

    Args:
        given: an optimizer or a list of them.

    Raises:
        ValueError: another optimizer, none, or several.
    """
    optimizers = list(given) if isinstance(given, Sequence) else [given]
    bare = [_unwrapped(optimizer) for optimizer in optimizers]
    if len(bare) == 1 and isinstance(bare[0], D3FusedSGD):
        return bare[0]
    names = ", ".join(type(optimizer).__name__ for optimizer in bare)
    raise ValueError(f"D3Callback needs one optimizer, a D3FusedSGD, got {names or 'none'}")


def _unwrapped(optimizer: Any) -> Any:
    while not isinstance(optimizer, D3FusedSGD):
        inner = getattr(optimizer, "optimizer", None)
        if not isinstance(inner, Optimizer):
            break
        optimizer = inner
    return optimizer


class Repair:
    """The state of one repair between a trainer's steps.

    A trainer's hooks call, in this order: ``measure_suspect`` (where ``needs_suspect``),
    ``begin``, then ``begin_epoch`` and ``validated`` as often as it likes.

    Args:
        options: what to do.
    """

    def __init__(self, options: RepairOptions) -> None:
        self.options = options
        self.suspect_acc = options.suspect_acc
        self.within = False
        self.optimizer: D3FusedSGD | None = None
        self.loss: CleanLoss | None = None
        self.schedule: DistanceSchedule | None = None
        self._loaded: Mapping[str, Any] | None = None

    @property
    def needs_suspect(self) -> bool:
        """Whether the suspect's accuracy is still to be measured, before the warm start."""
        return self.options.max_acc_drop is not None and self.suspect_acc is None

    def measure_suspect(self, metrics: Mapping[str, Any]) -> None:
        """Take the suspect's own accuracy from the metrics of a validation before training."""
        name = self.options.val_acc
        self.suspect_acc = _check_share(name, _metric(metrics, name))

    def begin(self, optimizers: Any, loss: CleanLoss | None) -> None:
        """Start, or go on from a loaded state; does nothing while the optimizer is the same.

        Args:
            optimizers: the trainer's.
            loss: whose weight is lambda; needed for dual ascent alone.

        Raises:
            ValueError: an optimizer that is no ``D3FusedSGD``; dual ascent without a
                ``CleanLoss``; an accuracy budget without the suspect's accuracy.
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
        """Bring the schedule to where it is after so many epochs.

        Not at the end of an epoch: a checkpoint may lie between its last step and its end, and
        trainers do not come back to that end.
        """
        while self.schedule is not None and self.schedule.last_epoch < epochs_done:
            self.schedule.step()

    def validated(self, metrics: Mapping[str, Any]) -> bool:
        """Take one step of dual ascent, and say whether the accuracy has left its budget.

        Args:
            metrics: names and values of a validation, as the trainer keeps them.

        Raises:
            ValueError: a metric that is missing, NaN or no share of 1.
        """
        options = self.options
        if options.dual_step and self.loss is not None:
            excess = _metric(metrics, options.val_loss) - self.loss.epsilon
            self.loss.weight = max(0.0, self.loss.weight + options.dual_step * excess)
        if options.max_acc_drop is None or self.suspect_acc is None:
            return False
        acc = _check_share(options.val_acc, _metric(metrics, options.val_acc))
        fits = 100 * (self.suspect_acc - acc) <= options.max_acc_drop + 1e-9  # 100 * 0.01 > 1
        left, self.within = self.within and not fits, self.within or fits
        return left

    def readings(self) -> dict[str, Tensor | float]:
        """What to log after an epoch: distances (0-dim tensors, unread), lambda, the schedule."""
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
        """What a checkpoint has to keep, as plain numbers (JSON keeps it exactly)."""
        return {
            "suspect_acc": self.suspect_acc,
            "within": self.within,
            "clean_weight": None if self.loss is None else self.loss.weight,
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Keep a state for the coming ``begin``, which then goes on instead of starting anew.

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
    """A schedule's values by name; the second group's is ``what_1``, a pair is two entries."""
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
