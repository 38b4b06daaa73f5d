# SPDX-License-Identifier: Apache-2.0
"""The rules of the step: what D3FusedSGD and D3FusedAdamW do not share.

A rule says which options of a param group it reads, which buffers it keeps beside the weights, and
how weights and buffers move along a gradient and a push. Sums, projections, cached norms, dtypes,
scopes, compilation and checkpoints know no rule. The formula of a rule stands twice: here in plain
PyTorch and in ``csrc/common/step_math.h``. To add one, add a file and a row to ``RULES``.
"""

from collections.abc import Mapping
from typing import Any

from d3fast.optim.rules.adamw import ADAMW
from d3fast.optim.rules.base import Rule
from d3fast.optim.rules.sgd import SGD

__all__ = ["RULES", "Rule", "rule_of"]

RULES = (SGD, ADAMW)


def rule_of(group: Mapping[str, Any]) -> Rule:
    """Return the rule of a param group, by the options that it has."""
    return ADAMW if "betas" in group else SGD
