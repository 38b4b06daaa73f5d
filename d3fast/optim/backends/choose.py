# SPDX-License-Identifier: Apache-2.0
"""Choice of the backend of a param group, with a warning where no kernel serves it."""

import sys
import warnings
from collections.abc import Mapping
from typing import Any

from d3fast.optim.backends import native
from d3fast.optim.backends.dtensor import is_sharded, local_group


def level_of_caller() -> int:
    """Return the ``stacklevel`` with which the caller warns about the user's own line."""
    level, frame = 1, sys._getframe(1)
    while frame.f_globals["__name__"].startswith(("d3fast.", "torch.")) and frame.f_back:
        level, frame = level + 1, frame.f_back
    return level


def choose_backend(index: int, group: Mapping[str, Any], announce: bool = False) -> str:
    """Return ``"fused"`` or ``"reference"``.

    Args:
        index: number of the group, for messages.
        group: the param group.
        announce: warn where ``backend="auto"`` finds no kernel.

    Raises:
        ValueError: ``backend="fused"`` where no kernel serves the group.
    """
    sharded = is_sharded(group)
    if sharded and group["reference_device"] is not None:
        raise ValueError("reference_device='cpu' is not supported for DTensors")
    if group["backend"] == "reference":
        return "reference"
    reason = native.why_not(local_group(group) if sharded else group)
    if reason is None:
        return "fused"
    if group["backend"] == "fused":
        raise ValueError(f"backend='fused' cannot serve param group {index}: {reason}")
    if announce:
        warnings.warn(
            f"param group {index} runs on the slower backend='reference': {reason}; "
            "ask for backend='reference' to silence this",
            stacklevel=level_of_caller(),
        )
    return "reference"
