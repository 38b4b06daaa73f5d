# SPDX-License-Identifier: Apache-2.0
"""The constraint sets of the D3 step, onto which the weights are projected.

Every set is a shell ``lower <= ||x|| <= upper`` around one of two centres, and the projection
rescales ``x`` radially. ``x`` is the weight for the norm sets and the displacement from the
reference for the distance sets; norms are Euclidean for every ``distance_p``. To add a set, add a
row to ``CONSTRAINTS``: all backends read only its centre and its two bounds.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor

Center = Literal["origin", "reference"]


@dataclass(frozen=True)
class Constraint:
    """One constraint set: a shell around ``center`` bounded below and/or above.

    Args:
        name: the public name, the value of the ``constraint`` option.
        center: ``"origin"`` bounds the norm of the weights, ``"reference"`` their distance
            from the reference copy.
        bounded_below: the radius is a lower bound.
        bounded_above: the radius is an upper bound.
        default_radius: radius in units of the reference norm when none is given, or ``None``
            where the caller has to give one.
    """

    name: str
    center: Center
    bounded_below: bool
    bounded_above: bool
    default_radius: float | None

    @property
    def takes_pair(self) -> bool:
        """Return whether the radius is a pair ``(lower, upper)``."""
        return self.bounded_below and self.bounded_above and self.default_radius is None


CONSTRAINTS: Mapping[str, Constraint] = MappingProxyType(
    {
        c.name: c
        for c in (
            Constraint("norm_sphere", "origin", True, True, 1.0),
            Constraint("norm_ball", "origin", False, True, 1.0),
            Constraint("distance_ball", "reference", False, True, None),
            Constraint("distance_floor", "reference", True, False, None),
            Constraint("distance_shell", "reference", True, True, None),
        )
    }
)


@dataclass(frozen=True)
class Bounds:
    """Bounds of the shell in one step.

    Args:
        center: centre of the shell.
        lower: smallest admissible norm, number or 0-dim tensor.
        upper: largest admissible norm, likewise.
        relative: bounds are in units of ``||reference||``, else absolute.
    """

    center: Center
    lower: float | Tensor
    upper: float | Tensor
    relative: bool

    def scaled(self, reference_norm: Tensor) -> tuple[Tensor, Tensor]:
        """Return both bounds in absolute units as 0-dim tensors, like ``reference_norm``."""
        unit = reference_norm if self.relative else torch.ones_like(reference_norm)
        unbounded = isinstance(self.upper, float) and math.isinf(self.upper)
        # inf * 0 would be NaN for an all-zero reference.
        upper = torch.full_like(unit, math.inf) if unbounded else self.upper * unit
        lower = self.lower * unit
        return lower.reshape(()), upper.reshape(())


def _check_radius(name: str, value: Any) -> None:
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"{name} must be a number or a 1-element tensor, got {value.shape}")
        if not value.is_cpu:
            return  # reading it would make the host wait for the device
        value = value.item()
    if not isinstance(value, Real) or not 0 <= float(value) < math.inf:
        raise ValueError(f"{name} must be a finite number >= 0, got {value!r}")


def resolve_bounds(group: Mapping[str, Any]) -> Bounds | None:
    """Return the present bounds of a param group, or ``None`` where it is unconstrained.

    Args:
        group: a param group with the options ``constraint``, ``radius``, ``radius_unit``.

    Raises:
        ValueError: unknown constraint, a radius missing, negative or of the wrong form, or a
            shell whose upper bound is below its lower one.
    """
    name, radius = group["constraint"], group["radius"]
    if name is None:
        return None
    if name not in CONSTRAINTS:
        known = ", ".join(repr(c) for c in (*CONSTRAINTS, None))
        raise ValueError(f"constraint must be one of {known}, got {name!r}")
    kind = CONSTRAINTS[name]
    if radius is None:
        if kind.default_radius is None:
            form = "radius=(lower, upper)" if kind.takes_pair else "radius=..."
            raise ValueError(f"constraint {name!r} needs {form}, got radius=None")
        return Bounds(
            kind.center,
            kind.default_radius if kind.bounded_below else 0.0,
            kind.default_radius,
            relative=True,
        )
    relative = group["radius_unit"] == "relative"
    if kind.takes_pair:
        if not isinstance(radius, (tuple, list)) or len(radius) != 2:
            raise ValueError(f"constraint {name!r} needs radius=(lower, upper), got {radius!r}")
        lower, upper = radius
        _check_radius("radius[0]", lower)
        _check_radius("radius[1]", upper)
        on_host = all(not isinstance(r, Tensor) or r.is_cpu for r in (lower, upper))
        if on_host and upper < lower:
            raise ValueError(f"radius: the ball {upper!r} is smaller than the floor {lower!r}")
        return Bounds(kind.center, lower, upper, relative)
    _check_radius("radius", radius)
    return Bounds(
        kind.center,
        radius if kind.bounded_below else 0.0,
        radius if kind.bounded_above else math.inf,
        relative,
    )


def projection_coefficient(norm: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Return the factor that brings a vector of this norm into the shell: ``clamp(norm)/norm``.

    1 inside the shell and where the norm is 0 (no direction to move along).

    Args:
        norm: 0-dim, ``||x||``.
        lower: 0-dim, smallest admissible norm.
        upper: 0-dim, largest admissible norm.
    """
    one = torch.ones_like(norm)
    target = torch.minimum(torch.maximum(norm, lower), upper)
    inside = (norm >= lower) & (norm <= upper) | (norm == 0)
    return torch.where(inside, one, target / torch.where(norm == 0, one, norm))
