# SPDX-License-Identifier: Apache-2.0
"""Defences with one call signature, in one registry.

To add one, add a file with a dataclass of the shape of ``Defense`` and a row to ``DEFENSES``.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from d3fast.defenses.base import Defense, DefenseResult
from d3fast.defenses.d3 import D3
from d3fast.defenses.fine_tuning import FineTuning
from d3fast.defenses.pipeline import Pipeline

DEFENSES: Mapping[str, Callable[..., Defense]] = MappingProxyType(
    {"d3": D3, "fine-tuning": FineTuning}
)

__all__ = ["D3", "DEFENSES", "Defense", "DefenseResult", "FineTuning", "Pipeline"]
