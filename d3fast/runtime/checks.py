# SPDX-License-Identifier: Apache-2.0
"""Checks of options; every error names the option, its bound and the value."""

import math
from collections.abc import Iterable
from numbers import Real
from typing import Any


def check_integer(name: str, value: Any, minimum: int) -> None:
    """Raise ``ValueError`` unless the value is an integer of at least ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(f"{name} must be an integer >= {minimum}, got {value!r}")


def check_number(name: str, value: Any, minimum: float = 0.0) -> None:
    """Raise ``ValueError`` unless the value is a finite number of at least ``minimum``."""
    # float first: isinstance of an abstract class is slow, and a step checks every group.
    if type(value) is not float and (isinstance(value, bool) or not isinstance(value, Real)):
        raise ValueError(f"{name} must be a number, got {value!r}")
    if not minimum <= float(value) < math.inf or value == -math.inf:
        raise ValueError(f"{name} must be finite and >= {minimum:g}, got {value!r}")


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Raise ``ValueError`` unless the value is one of ``choices``."""
    listed = tuple(choices)
    if value not in listed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, listed))}, got {value!r}")
