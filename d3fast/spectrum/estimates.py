# SPDX-License-Identifier: Apache-2.0
"""Estimates from random probes, with their standard errors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any


@dataclass(frozen=True)
class Estimate:
    """Mean over probes.

    Attributes:
        value: the estimate.
        standard_error: standard error of the mean; 0 for an exact value, ``None`` for a single
            probe.

    Example:
        >>> Estimate.of([1.0, 3.0])
        Estimate(value=2.0, standard_error=1.0)
    """

    value: float
    standard_error: float | None

    @classmethod
    def of(cls, samples: Sequence[float], offset: float = 0.0) -> "Estimate":
        """Return ``offset`` plus the mean of independent samples, with its standard error."""
        error = stdev(samples) / math.sqrt(len(samples)) if len(samples) > 1 else None
        return cls(offset + fmean(samples), error)

    def as_dict(self) -> dict[str, Any]:
        """Return a dict for JSON."""
        return {"value": self.value, "standard_error": self.standard_error}
