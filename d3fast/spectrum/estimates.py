# SPDX-License-Identifier: Apache-2.0
"""A number that was estimated from random probes, and how far it can be trusted."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any


@dataclass(frozen=True)
class Estimate:
    """A mean over probes.

    Attributes:
        value: the estimate.
        standard_error: its standard deviation over other draws of the probes; 0 where nothing is
            random, ``None`` where a single probe cannot tell.

    Example:
        >>> Estimate.of([1.0, 3.0])
        Estimate(value=2.0, standard_error=1.0)
    """

    value: float
    standard_error: float | None

    @classmethod
    def of(cls, samples: Sequence[float], offset: float = 0.0) -> "Estimate":
        """``offset`` plus the mean of independent samples."""
        error = stdev(samples) / math.sqrt(len(samples)) if len(samples) > 1 else None
        return cls(offset + fmean(samples), error)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"value": self.value, "standard_error": self.standard_error}
