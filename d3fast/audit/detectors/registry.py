# SPDX-License-Identifier: Apache-2.0
"""All detectors by name, in the order in which they run.

``DETECTORS`` look at a model and clean samples; their rates are in docs/inspect.md, and why not all
of them are in ``DEFAULT_DETECTORS``. Other packages add theirs by entry points of the group
``d3fast.detectors``; those run only where they are named. Those of
``WEIGHT_DETECTORS`` read the weights alone: ``d3fast.audit.weights`` runs them without samples.
"""

from collections.abc import Mapping
from types import MappingProxyType

from d3fast.audit.detectors.base import Detector
from d3fast.audit.detectors.differential import DifferentialShift
from d3fast.audit.detectors.head import HeadWeights
from d3fast.audit.detectors.margin import MaximumMargin
from d3fast.audit.detectors.patch import Patch
from d3fast.audit.detectors.rows import HeadAngle, HeadNorm
from d3fast.audit.detectors.shift import SharedShift
from d3fast.audit.detectors.wave import DifferentialWave
from d3fast.runtime.plugins import Registry

DETECTORS: Registry[type[Detector]] = Registry(
    "detectors",
    "d3fast.detectors",
    {
        "patch": Patch,
        "head": HeadWeights,
        "shift": SharedShift,
        "margin": MaximumMargin,
        "differential": DifferentialShift,
        "wave": DifferentialWave,
    },
)
# Those that run unless others are asked for.
DEFAULT_DETECTORS: tuple[str, ...] = ("patch", "head", "shift", "margin")

WEIGHT_DETECTORS: Mapping[str, type[Detector]] = MappingProxyType(
    {
        "head": HeadWeights,
        "head-norm": HeadNorm,
        "head-angle": HeadAngle,
    }
)
