# SPDX-License-Identifier: Apache-2.0
"""All signs, in the order in which they are asked."""

from collections.abc import Mapping
from types import MappingProxyType

from d3fast.inspection.head import HeadWeights
from d3fast.inspection.margin import MaximumMargin
from d3fast.inspection.patch import Patch
from d3fast.inspection.shift import SharedShift
from d3fast.inspection.signs import Sign

SIGNS: Mapping[str, type[Sign]] = MappingProxyType(
    {
        "patch": Patch,
        "head": HeadWeights,
        "shift": SharedShift,
        "margin": MaximumMargin,
    }
)
