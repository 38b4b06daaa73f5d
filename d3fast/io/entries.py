# SPDX-License-Identifier: Apache-2.0
"""Contents of a weight file before any tensor is read.

A reader of weight files returns nested dictionaries and lists with a ``TensorEntry`` for each dense
tensor and an ``OtherEntry`` for each object that cannot be a weight. The caller compares shapes and
dtypes with its model first, and reads only what fits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_MAX_DEPTH = 20
_MAX_NODES = 2**20


@dataclass(frozen=True, eq=False)
class TensorEntry:
    """A dense tensor that is still in its file.

    Attributes:
        shape: shape according to the file.
        dtype: dtype according to the file.
        read: reads the tensor. It takes at most a few times the memory of such a tensor, whatever
            the file claims, and raises ``ValueError`` where the file does not hold the tensor.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]

    @property
    def nbytes(self) -> int:
        """Size of the tensor in bytes."""
        count = self.dtype.itemsize
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True)
class OtherEntry:
    """An object of a file that cannot be a weight.

    Attributes:
        kind: a description with its article: ``"a sparse tensor"``.
    """

    kind: str


def read_entries(held: Any, max_bytes: int) -> Any:
    """Return nested dictionaries, lists and tuples with every ``TensorEntry`` read.

    An object that the file refers to several times is read once and shared.

    Args:
        held: contents of a file, as ``read_torch_file`` returns them.
        max_bytes: limit on the bytes of all tensors together; the size of the file is a natural
            one.

    Raises:
        ValueError: more than ``max_bytes`` of tensors, more than 2^20 objects, more than 20
            levels, or a tensor that cannot be read.

    Example:
        >>> entry = TensorEntry((1,), torch.float32, lambda: torch.ones(1))
        >>> read_entries({"a": [entry, 2]}, max_bytes=4)
        {'a': [tensor([1.]), 2]}
    """
    return _EntryReader(max_bytes).read(held, 0)


class _EntryReader:
    """Reads each object of a nested structure once, within limits."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = self.bytes_left = max_bytes
        self.nodes_left = _MAX_NODES
        self.done: dict[int, Any] = {}  # by identity: the structure keeps its objects alive

    def read(self, held: Any, depth: int) -> Any:
        if not isinstance(held, dict | list | tuple | TensorEntry):
            return held
        if id(held) not in self.done:
            self.done[id(held)] = self._read(held, depth)
        return self.done[id(held)]

    def _read(self, held: Any, depth: int) -> Any:
        if isinstance(held, TensorEntry):
            self.bytes_left -= held.nbytes
            if self.bytes_left < 0:
                raise ValueError(f"its tensors take more than {self.max_bytes} bytes")
            return held.read()
        self.nodes_left -= len(held) + 1
        if depth > _MAX_DEPTH or self.nodes_left < 0:
            raise ValueError(f"it nests more than {_MAX_DEPTH} levels or {_MAX_NODES} objects")
        if isinstance(held, dict):
            return {key: self.read(value, depth + 1) for key, value in held.items()}
        return type(held)(self.read(value, depth + 1) for value in held)
