# SPDX-License-Identifier: Apache-2.0
"""Repair neural networks that may carry a backdoor, by D3 (arXiv 2411.09585).

``D3FusedSGD`` is a drop-in for ``torch.optim.SGD`` that pushes tracked weights away from where they
started, ``D3FusedAdamW`` one for ``torch.optim.AdamW``. ``detoxify`` repairs a model in one call,
``inspect_model`` looks for signs of a backdoor, ``evaluate`` measures ACC, ASR and RA.

Names are loaded on first use: ``from d3fast import D3FusedSGD`` imports the optimizer and torch,
neither attacks nor plots nor the command line.
"""

import importlib
import warnings
from typing import TYPE_CHECKING, Any

from d3fast import _renamed

if TYPE_CHECKING:
    from d3fast import attacks, data, defenses, models
    from d3fast.audit import Inspection, inspect_model
    from d3fast.audit.resolve import Audit, open_audit
    from d3fast.benchmark.existence import existence_coefficient
    from d3fast.benchmark.reactivation import (
        Reactivation,
        ReactivationConfig,
        evaluate_reactivation,
    )
    from d3fast.benchmark.relearning import RelearnConfig, Relearning, evaluate_relearning
    from d3fast.detox import D3Config, DetoxResult, detoxify
    from d3fast.optim import D3FusedAdamW, D3FusedSGD, find_head, param_groups, schedules
    from d3fast.training import metrics
    from d3fast.training.loss import CleanLoss
    from d3fast.training.metrics import Metrics, evaluate

    __version__: str

_MODULES = {
    "attacks": "d3fast.attacks",
    "data": "d3fast.data",
    "defenses": "d3fast.defenses",
    "metrics": "d3fast.training.metrics",
    "models": "d3fast.models",
    "schedules": "d3fast.optim.schedules",
}
_NAMES = {
    "Audit": "d3fast.audit.resolve",
    "CleanLoss": "d3fast.training.loss",
    "D3Config": "d3fast.detox",
    "D3FusedAdamW": "d3fast.optim",
    "D3FusedSGD": "d3fast.optim",
    "DetoxResult": "d3fast.detox",
    "Inspection": "d3fast.audit",
    "Metrics": "d3fast.training.metrics",
    "Reactivation": "d3fast.benchmark.reactivation",
    "ReactivationConfig": "d3fast.benchmark.reactivation",
    "RelearnConfig": "d3fast.benchmark.relearning",
    "Relearning": "d3fast.benchmark.relearning",
    "detoxify": "d3fast.detox",
    "evaluate": "d3fast.training.metrics",
    "evaluate_reactivation": "d3fast.benchmark.reactivation",
    "evaluate_relearning": "d3fast.benchmark.relearning",
    "existence_coefficient": "d3fast.benchmark.existence",
    "find_head": "d3fast.optim",
    "inspect_model": "d3fast.audit",
    "open_audit": "d3fast.audit.resolve",
    "param_groups": "d3fast.optim",
}

__all__ = [
    "Audit",
    "CleanLoss",
    "D3Config",
    "D3FusedAdamW",
    "D3FusedSGD",
    "DetoxResult",
    "Inspection",
    "Metrics",
    "Reactivation",
    "ReactivationConfig",
    "RelearnConfig",
    "Relearning",
    "attacks",
    "data",
    "defenses",
    "detoxify",
    "evaluate",
    "evaluate_reactivation",
    "evaluate_relearning",
    "existence_coefficient",
    "find_head",
    "inspect_model",
    "metrics",
    "models",
    "open_audit",
    "param_groups",
    "schedules",
]

_renamed.install()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("d3fast.runtime.environment").versions()["d3fast"]
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name in _renamed.NAMES:
        new = _renamed.NAMES[name]
        warnings.warn(f"d3fast.{name} is now d3fast.{new}", DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module(__name__), new)
    if name in _NAMES:
        value = getattr(importlib.import_module(_NAMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'd3fast' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
