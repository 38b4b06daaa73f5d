# SPDX-License-Identifier: Apache-2.0
"""``architecture_digest``: tells whether two models have the same architecture."""

import hashlib

from torch import nn


def architecture_digest(model: nn.Module) -> str:
    """Return the SHA-256 of names and shapes of a model's parameters and buffers, in hex.

    It tells the numbers of classes and channels too, but not the layers between the weights.

    Example:
        >>> one, two = nn.Linear(3, 2), nn.Linear(3, 2)
        >>> architecture_digest(one) == architecture_digest(two)
        True
        >>> architecture_digest(one) == architecture_digest(nn.Linear(3, 4))
        False
    """
    state = model.state_dict()
    lines = [f"{name} {tuple(state[name].shape)}" for name in sorted(state)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
