# SPDX-License-Identifier: Apache-2.0
"""What a file of weights lists before any of it is read: tensors by shape and dtype, or not."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Stored:
    """A dense tensor that is still in its file.

    Attributes:
        shape: its shape, as the file claims.
        dtype: its dtype.
        read: reads it; takes a few times the memory of such a tensor at most, whatever the file
            claims, and raises ``ValueError`` where the file does not hold what it claims.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]


@dataclass(frozen=True)
class Other:
    """Something a file holds that cannot be a weight, in words: ``"a sparse tensor"``."""

    kind: str
