# SPDX-License-Identifier: Apache-2.0
"""The plain step of param groups with DTensors whose rule is not linear in the push: AdamW.

``shard_torch`` computes a step before D = ||theta - theta_0||_p is known. The second moment of
AdamW is quadratic in the push, so here D comes first, from an exchange of its own; the rest is
``torch_backend`` on local parts::

    measure    sum |delta|^p, sum theta_0^2
    update     theta' and the buffers <- the rule; sum theta'^2 or |theta' - theta_0|^2
    project    theta <- Pi(theta')

No norm is cached, so no edit of the weights can make one stale.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from d3fast.optim.backends.dtensor import counts_here, local
from d3fast.optim.backends.shard_plan import squared_distance
from d3fast.optim.backends.shard_torch import count_step, members_of, power_sum
from d3fast.optim.backends.torch_backend import Member, distance_gradient
from d3fast.optim.constraints import projection_coefficient, resolve_bounds
from d3fast.optim.kahan import kahan_load, kahan_store
from d3fast.optim.rules import rule_of

Group = Mapping[str, Any]
State = MutableMapping[Tensor, dict[str, Any]]

COLUMNS = 3  # of the sums
POWER, REFERENCE, NORM = range(COLUMNS)


class RuleShard:
    """The step of a tracked group; see ``ShardPlan`` for the methods' meaning.

    Args:
        group: the param group.
        state: the optimizer's state; missing buffers are made here.
    """

    columns = COLUMNS

    def __init__(self, group: Group, state: State) -> None:
        self._group, self._state = group, state
        params = [p for p in group["params"] if p.grad is not None]
        joint = group["scope"] == "group"
        self._norm_groups = [params] if joint else [[p] for p in params]
        self.rows: Sequence[Tensor] = [members[0] for members in self._norm_groups]
        self._measured = torch.zeros(0)
        self._moved: list[list[tuple[Member, Tensor]]] = []

    def ready(self, group: Group, state: State) -> bool:
        """Return False: every step needs the distance first."""
        return False

    def measure(self, sums: Tensor) -> None:
        """Write this rank's share of distances and reference norms."""
        sums.zero_()
        order = float(self._group["distance_p"])
        for row, params in zip(sums, self._norm_groups, strict=True):
            for p in filter(counts_here, params):
                own = self._state[p]
                theta_0, kept = local(own["reference"]), local(own.get("compensation"))
                theta = kahan_load(local(p).detach(), kept)
                row[POWER] += power_sum(theta - theta_0.to(theta.dtype), order).to(row.device)
                row[REFERENCE] += squared_distance(theta_0).to(row.device)

    def prepare(self, state: State, totals: Tensor) -> None:
        """Keep what all ranks have measured."""
        self._measured = totals.clone()

    def update(self, grad_scale: Tensor | None, sums: Tensor) -> None:
        """Compute the step without its projection; the buffers move, the weights not yet."""
        sums.zero_()
        members = members_of(self._group, self._state, grad_scale)
        bounds = resolve_bounds(self._group)
        around_origin = bounds is None or bounds.center == "origin"
        order, rule = float(self._group["distance_p"]), rule_of(self._group)
        self._moved = []
        for row, total, params in zip(sums, self._measured, self._norm_groups, strict=True):
            distance = total[POWER] ** (1 / order)
            moved = []
            for p in params:
                m = members[p]
                assert m.reference is not None
                theta = kahan_load(m.param, m.compensation)
                theta_0 = m.reference.to(theta.dtype)
                push = distance_gradient(theta - theta_0, distance.to(theta), order)
                push = self._group["distance_weight"] * push
                theta = rule.update(theta, m, push, self._group)
                moved.append((m, theta))
                if counts_here(p):
                    norm = squared_distance(theta, None if around_origin else theta_0)
                    row[NORM] += norm.to(row.device)
            self._moved.append(moved)

    def correct(self, totals: Tensor, sums: Tensor) -> bool:
        """Return False: no norm is cached."""
        return False

    def project(self, group: Group, state: State, totals: Tensor) -> None:
        """Project and write the weights."""
        bounds = resolve_bounds(group)
        for measured, total, moved in zip(self._measured, totals, self._moved, strict=True):
            c = torch.ones_like(total[NORM])
            if bounds is not None:
                lower, upper = bounds.scaled(measured[REFERENCE].sqrt())
                c = projection_coefficient(total[NORM].sqrt(), lower, upper)
            for m, theta in moved:
                factor = c.to(theta)
                if bounds is not None and bounds.center == "origin":
                    theta = factor * theta
                elif bounds is not None and m.reference is not None:
                    theta_0 = m.reference.to(theta.dtype)
                    theta = torch.where(factor == 1, theta, theta_0 + factor * (theta - theta_0))
                kahan_store(theta, m.param, m.compensation)
        self._moved = []
        count_step(group, state)
