# SPDX-License-Identifier: Apache-2.0
"""The plans of an optimizer's param groups, and those that captured CUDA graphs go on addressing.

A captured graph holds addresses: of a plan's tables, of the tensors of the state and of options
that lie on the device. A plan that is dropped while a graph holds its step is kept as long as the
optimizer lives, so a replay never writes to memory that belongs to something else by then.
"""

from typing import Any, Generic, Protocol, TypeVar


class Capturable(Protocol):
    """A plan that knows whether a graph holds its step."""

    @property
    def captured(self) -> bool:
        """True once a step of the plan was captured in a CUDA graph."""


PlanType = TypeVar("PlanType", bound=Capturable)


class Plans(Generic[PlanType]):
    """Plans by number of the part.

    Args:
        captured: list that takes over the dropped plans whose step a graph holds.
    """

    def __init__(self, captured: list[Any]) -> None:
        self._plans: dict[int, PlanType] = {}
        self._captured = captured

    def __len__(self) -> int:
        return len(self._plans)

    def __getitem__(self, index: int) -> PlanType:
        return self._plans[index]

    def __setitem__(self, index: int, plan: PlanType) -> None:
        self.drop(index)
        self._plans[index] = plan

    def get(self, index: int) -> PlanType | None:
        """Return the plan of a part, ``None`` where it has none."""
        return self._plans.get(index)

    def drop(self, index: int) -> None:
        """Drop the plan of a part, where it has one."""
        plan = self._plans.pop(index, None)
        if plan is not None and plan.captured:
            self._captured.append(plan)

    def clear(self) -> None:
        """Drop all plans."""
        for index in list(self._plans):
            self.drop(index)
