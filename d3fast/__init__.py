# SPDX-License-Identifier: Apache-2.0
"""d3fast repairs neural networks that may carry a backdoor by D3 (arXiv 2411.09585).

``detoxify`` does it in one call, ``D3FusedSGD`` is the optimizer underneath: a drop-in for
``torch.optim.SGD`` that pushes tracked weights away from where they started.
"""

from d3fast import attacks, data, defenses, environment, metrics, models, schedules
from d3fast.case import Case, open_case
from d3fast.detox import D3Config, DetoxResult, detoxify
from d3fast.inspection import Inspection, inspect_model
from d3fast.loss import CleanLoss
from d3fast.metrics import Metrics, evaluate
from d3fast.optim import D3FusedSGD, find_head, param_groups
from d3fast.relearning import RelearnConfig, Relearning, evaluate_relearning

__version__ = environment.versions()["d3fast"]

__all__ = [
    "Case", "CleanLoss", "D3Config", "D3FusedSGD", "DetoxResult", "Inspection", "Metrics",
    "RelearnConfig", "Relearning", "attacks", "data", "defenses", "detoxify", "evaluate",
    "evaluate_relearning", "find_head", "inspect_model", "metrics", "models", "open_case",
    "param_groups", "schedules",
]  # fmt: skip
