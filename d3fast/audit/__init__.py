# SPDX-License-Identifier: Apache-2.0
"""Audit of a checkpoint: backdoor detectors that need clean samples and no trigger.

inspect_model, InspectOptions, Inspection            everything about one model
DETECTORS, Detector, DetectorResult                  the detectors, one file each
InspectionContext, open_context, run_detector        to run one detector alone
Verdict, verdict                                     the conclusion from all of them
"""

from d3fast._renamed import renamed_names
from d3fast.audit.detectors.base import Detector, DetectorResult, run_detector
from d3fast.audit.detectors.context import InspectionContext, open_context
from d3fast.audit.detectors.registry import DETECTORS
from d3fast.audit.inspect import Inspection, InspectOptions, inspect_model
from d3fast.audit.verdict import Verdict, verdict

__all__ = [
    "DETECTORS",
    "Detector",
    "DetectorResult",
    "InspectOptions",
    "Inspection",
    "InspectionContext",
    "Verdict",
    "inspect_model",
    "open_context",
    "run_detector",
    "verdict",
]

__getattr__ = renamed_names(
    __name__,
    {
        "Finding": "DetectorResult",
        "SIGNS": "DETECTORS",
        "Sign": "Detector",
        "Subject": "InspectionContext",
        "ask": "run_detector",
        "open_subject": "open_context",
    },
)
