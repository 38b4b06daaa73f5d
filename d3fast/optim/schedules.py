# SPDX-License-Identifier: Apache-2.0
"""Distance schedules: ``distance_weight`` or ``radius`` from one value to another.

``DistanceSchedule`` works like an LR scheduler of torch, for the two options of a D3 optimizer
that determine the distance of the tracked weights. A shape is a function from the number of steps
taken to a share in [0, 1]; to add one, add a function and a row to ``SHAPES``.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from torch import Tensor

from d3fast.optim.base import D3Optimizer
from d3fast.optim.constraints import CONSTRAINTS
from d3fast.optim.options import is_tracked
from d3fast.optim.tracking import tracked_params
from d3fast.runtime.checks import check_choice, check_integer, check_number

Value = float | tuple[float, float]
Shape = Callable[[int, int, int], float]

OPTIONS = ("distance_weight", "radius")


def linear(done: int, steps: int, stages: int = 1) -> float:
    """Return the share after ``done`` steps: ``done / steps``."""
    return done / steps


def cosine(done: int, steps: int, stages: int = 1) -> float:
    """Return the share after ``done`` steps: ``(1 - cos(pi * done / steps)) / 2``."""
    return (1 - math.cos(math.pi * done / steps)) / 2


def step(done: int, steps: int, stages: int = 1) -> float:
    """Return the share after ``done`` steps: ``floor(stages * done / steps) / stages``."""
    return stages * done // steps / stages  # in integers: 0.29 * 100 is below 29


SHAPES: Mapping[str, Shape] = MappingProxyType({f.__name__: f for f in (linear, cosine, step)})


def between(start: Value, end: Value, share: float) -> Value:
    """Return ``start + share * (end - start)``, exact at both ends, for each part of a pair."""
    if isinstance(start, tuple) and isinstance(end, tuple):
        lower, upper = (_mix(a, b, share) for a, b in zip(start, end, strict=True))
        return lower, max(lower, upper)  # rounding may cross ends that are equal
    assert not isinstance(start, tuple)
    assert not isinstance(end, tuple)
    return _mix(start, end, share)


def _mix(start: float, end: float, share: float) -> float:
    if share < 0.5:
        return start + share * (end - start)
    return end - (1 - share) * (end - start)


class DistanceSchedule:
    """Schedule of ``distance_weight`` or ``radius`` of the tracked groups, ``start`` to ``end``.

    After k calls of ``step()``: ``start + share(k) * (end - start)``, ``end`` from k = ``steps``
    on; ``share`` is ``k/steps`` (linear), ``(1 - cos(pi k/steps))/2`` (cosine) or
    ``floor(stages k/steps)/stages`` (step). The value for k = 0 is set at construction. A group is
    scheduled if it is tracked or has a reference; one that is added later joins with the next
    ``step()``. Other groups are left alone. An option that is a tensor is filled in place, so
    that a captured CUDA graph reads the new value; no step waits for the device.

    Without a constraint, a group is untracked while its weight is 0: take the warm start before
    the schedule is built.

    Args:
        optimizer: the optimizer.
        what: ``"distance_weight"``, or ``"radius"`` in the groups' own ``radius_unit``.
        shape: ``"linear"``, ``"cosine"`` or ``"step"``.
        start: first value, >= 0; a pair ``(lower, upper)`` for the radius of a shell.
        end: last value, likewise; what each group has now if ``None``.
        steps: number of ``step()`` calls from start to end, >= 1: epochs or batches.
        stages: number of equal increments of ``"step"``, >= 1.
        groups: indices of the param groups to schedule; all tracked ones if ``None``.
        last_epoch: number of the last step already taken, to resume without a saved state; -1
            for none. Needs ``end``.

    Attributes:
        last_epoch: calls of ``step()`` so far.

    Raises:
        ValueError: another optimizer; unknown names; a value that is negative or of the wrong
            form; steps < 1; a constraint that takes no radius; no group to schedule.

    Example:
        >>> import torch, d3fast
        >>> groups = d3fast.param_groups(torch.nn.Linear(4, 2))
        >>> opt = d3fast.D3FusedSGD(groups, distance_weight=2.0)
        >>> schedule = DistanceSchedule(opt, "distance_weight", "linear", start=0.0, steps=4)
        >>> for epoch in range(3):
        ...     schedule.step()  # after the epoch
        >>> schedule.last_epoch, schedule.get_last_value(), opt.param_groups[0]["distance_weight"]
        (3, [1.5], 1.5)
    """

    def __init__(
        self,
        optimizer: D3Optimizer,
        what: str = "distance_weight",
        shape: str = "linear",
        *,
        start: Value,
        end: Value | None = None,
        steps: int,
        stages: int = 4,
        groups: Sequence[int] | None = None,
        last_epoch: int = -1,
    ) -> None:
        if not isinstance(optimizer, D3Optimizer):
            raise ValueError(
                f"optimizer must be a D3FusedSGD or D3FusedAdamW, got {type(optimizer).__name__}"
            )
        check_choice("what", what, OPTIONS)
        check_integer("last_epoch", last_epoch, -1)
        if last_epoch >= 0 and end is None:
            raise ValueError(f"end must be given to resume at last_epoch={last_epoch}")
        self.optimizer = optimizer
        self.what = what
        self.groups = _indices(optimizer, groups)
        self._end = None if end is None else _checked("end", end)
        self._take(shape, _checked("start", start), steps, stages, [], last_epoch)
        self._join()
        if all(end is None for end in self._ends):
            raise ValueError("the optimizer has no tracked param group to drive")
        self.step()

    def _take(
        self,
        shape: str,
        start: Value,
        steps: int,
        stages: int,
        ends: list[Value | None],
        last_epoch: int,
    ) -> None:
        check_choice("shape", shape, SHAPES)
        check_integer("steps", steps, 1)
        check_integer("stages", stages, 1)
        self.shape, self.start, self.steps, self.stages = shape, start, steps, stages
        self._ends, self.last_epoch = ends, last_epoch

    def _join(self) -> None:
        """Add the end values of groups that were added since the last call."""
        ends = list(self._ends)
        for index in range(len(ends), len(self.optimizer.param_groups)):
            ends.append(self._end_of(index))
        self._ends = ends

    def _end_of(self, index: int) -> Value | None:
        """Return the end value of a group, ``None`` for one that is left alone."""
        group = self.optimizer.param_groups[index]
        asked = self.groups is not None and index in self.groups
        if not asked and (self.groups is not None or not self._follows(group)):
            return None
        if self.what == "radius" and group["constraint"] is None:
            raise ValueError(f"param group {index} has constraint=None, which takes no radius")
        present = _present(group, self.what, index) if self._end is None else self._end
        end = _checked("end", present)
        pair = self.what == "radius" and CONSTRAINTS[group["constraint"]].takes_pair
        for name, value in (("start", self.start), ("end", end)):
            if isinstance(value, tuple) != pair:
                form = "a pair (lower, upper)" if pair else "a number"
                asker = f"{self.what} of param group {index}"
                raise ValueError(f"{name} must be {form} for {asker}, got {value!r}")
        return end

    def _follows(self, group: Mapping[str, Any]) -> bool:
        states = [self.optimizer.state.get(p, {}) for p in tracked_params(group)]
        return is_tracked(group) or (bool(states) and all("reference" in s for s in states))

    def step(self) -> None:
        """Take one step and write the value into the groups.

        Raises:
            ValueError: the schedule does not fit a tracked group that was added. Nothing has
                changed then.
        """
        self._join()
        self.last_epoch += 1
        self._write()

    def _write(self) -> None:
        for group, value in zip(self.optimizer.param_groups, self._values(), strict=False):
            if value is not None:
                group[self.what] = _written(group[self.what], value)

    def _values(self) -> list[Value | None]:
        done = min(self.last_epoch, self.steps)
        share = SHAPES[self.shape](done, self.steps, self.stages)
        return [None if end is None else between(self.start, end, share) for end in self._ends]

    def get_last_value(self) -> list[Value]:
        """Return the present values, one per scheduled group in group order; reads no tensor."""
        return [value for value in self._values() if value is not None]

    def retarget(self, end: Value) -> None:
        """Change the end of every scheduled group, and with it the present value.

        Args:
            end: the new last value, in the form of the old one.

        Raises:
            ValueError: a value that is negative or of the wrong form.
        """
        end = _checked("end", end)
        if isinstance(end, tuple) != isinstance(self.start, tuple):
            raise ValueError(f"end must have the form of start={self.start!r}, got {end!r}")
        self._end = end
        self._ends = [None if old is None else end for old in self._ends]
        self._write()

    def state_dict(self) -> dict[str, Any]:
        """Return the state as numbers, strings and lists, which JSON represents exactly."""
        return {
            "what": self.what,
            "shape": self.shape,
            "start": _listed(self.start),
            "steps": self.steps,
            "stages": self.stages,
            "groups": self.groups,
            "end": _listed(self._end),
            "ends": [_listed(end) for end in self._ends],
            "last_epoch": self.last_epoch,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the state of another schedule and write its value into the groups.

        The optimizer's state may be loaded before or after.

        Args:
            state_dict: the result of ``state_dict()`` of a schedule of the same option.

        Raises:
            ValueError: a state of another option, for other groups, or with values out of range.
        """
        given: dict[str, Any] = {name: state_dict.get(name) for name in self.state_dict()}
        if given["what"] != self.what:
            raise ValueError(f"the state is of {given['what']!r}, the schedule of {self.what!r}")
        count = len(self.optimizer.param_groups)
        if not isinstance(given["ends"], list) or len(given["ends"]) > count:
            raise ValueError(f"ends must list at most {count} param groups, got {given['ends']!r}")
        check_integer("last_epoch", given["last_epoch"], 0)
        start = _checked("start", given["start"])
        end, *ends = (
            None if value is None else _checked("end", value)
            for value in (given["end"], *given["ends"])
        )
        if any(isinstance(e, tuple) != isinstance(start, tuple) for e in ends if e is not None):
            raise ValueError(f"start and end must have one form, got {start!r} and {ends!r}")
        groups = _indices(self.optimizer, given["groups"])
        self._take(
            given["shape"], start, given["steps"], given["stages"], ends, given["last_epoch"]
        )
        self._end, self.groups = end, groups
        self._write()


def _indices(optimizer: D3Optimizer, groups: Sequence[int] | None) -> list[int] | None:
    if groups is None:
        return None
    for index in groups:
        check_integer("groups", index, 0)
        if index >= len(optimizer.param_groups):
            raise ValueError(
                f"groups must be below {len(optimizer.param_groups)}, the number of param "
                f"groups, got {index}"
            )
    return list(groups)


def _checked(name: str, value: Any) -> Value:
    """Return a number >= 0 as a float, or a pair of them."""
    if not isinstance(value, (tuple, list)):
        check_number(name, value)
        return float(value)
    if len(value) != 2:
        raise ValueError(f"{name} must be a number or a pair (lower, upper), got {value!r}")
    for part in value:
        check_number(name, part)
    lower, upper = map(float, value)
    if upper < lower:
        raise ValueError(f"{name} must be (lower, upper) with lower <= upper, got {value!r}")
    return lower, upper


def _present(group: Mapping[str, Any], what: str, index: int) -> Any:
    """Return the present value of a group as numbers; a tensor is read."""
    value = group[what]
    if value is None:  # the default radius is relative in every radius_unit
        default = CONSTRAINTS[group["constraint"]].default_radius
        if default is None or group["radius_unit"] != "relative":
            raise ValueError(
                f"end must be given: param group {index} has radius=None and "
                f"radius_unit={group['radius_unit']!r}"
            )
        return default
    if isinstance(value, (tuple, list)):
        return tuple(float(part) for part in value)
    return float(value)


def _written(old: Any, new: Value) -> Any:
    """Return the new value; a tensor is filled in place."""
    if isinstance(new, tuple):
        olds = old if isinstance(old, (tuple, list)) else (None, None)
        return tuple(_written(a, b) for a, b in zip(olds, new, strict=True))
    return old.fill_(new) if isinstance(old, Tensor) else new


def _listed(value: Value | None) -> Any:
    return list(value) if isinstance(value, tuple) else value
