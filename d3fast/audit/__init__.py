# SPDX-License-Identifier: Apache-2.0
"""Is this checkpoint likely backdoored? Signs that need clean samples and no trigger.

inspect_model, InspectOptions, Inspection    everything about one model
SIGNS, Sign, Finding                         the signs, one file each
Subject, open_subject, ask                   to ask one sign alone
Verdict                                      all of them in plain words
"""

from d3fast.audit.detectors.base import Finding, Sign, ask
from d3fast.audit.detectors.context import Subject, open_subject
from d3fast.audit.detectors.registry import SIGNS
from d3fast.audit.inspect import Inspection, InspectOptions, inspect_model
from d3fast.audit.verdict import Verdict, verdict

__all__ = [
    "SIGNS",
    "Finding",
    "InspectOptions",
    "Inspection",
    "Sign",
    "Subject",
    "Verdict",
    "ask",
    "inspect_model",
    "open_subject",
    "verdict",
]
