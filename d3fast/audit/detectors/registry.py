# SPDX-License-Identifier: Apache-2.0
"""All signs, in the order in which they are asked."""

from collections.abc import Mapping
from types import MappingProxyType

from d3fast.audit.detectors.base import Sign
from d3fast.audit.detectors.head import HeadWeights
from d3fast.audit.detectors.margin import MaximumMargin
from d3fast.audit.detectors.patch import Patch
from d3fast.audit.detectors.shift import SharedShift

SIGNS: Mapping[str, type[Sign]] = MappingProxyType(
    {
        "patch": Patch,
        "head": HeadWeights,
        "shift": SharedShift,
        "margin": MaximumMargin,
    }
)
