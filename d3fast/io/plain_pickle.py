# SPDX-License-Identifier: Apache-2.0
"""Pickled dictionaries of lists and byte arrays, read without unpickling.

Of the calls in a pickle one is followed: the way numpy stores an array of uint8, which is rebuilt
here from its bytes; see ``io.pickles``. The python version of CIFAR is stored so (by Python 2:
text is bytes).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from d3fast.io.pickles import Name, Reader, read_pickle
from d3fast.io.untrusted import printable

_NUMPY = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")


@dataclass
class _Array:
    """An array that is being rebuilt."""

    content: Any = None


@dataclass
class _Dtype:
    """The type of an array."""

    code: Any


def _call(name: str, arguments: tuple[Any, ...]) -> Any:
    module, _, attribute = name.partition(" ")
    if module in _NUMPY and attribute == "_reconstruct":
        return _Array()
    if module in _NUMPY and attribute == "dtype":
        return _Dtype(arguments[0])
    raise ValueError(f"it wants to call '{printable(name, 80)}'")


def _set_state(item: Any, state: Any) -> None:
    if isinstance(item, _Dtype):  # byte order and the like: nothing that matters to bytes
        return
    if not isinstance(item, _Array):
        raise ValueError("it sets the state of something that is no array")
    _, shape, dtype, fortran, content = state
    if not isinstance(dtype, _Dtype) or dtype.code not in ("u1", b"u1"):
        raise ValueError("it holds an array that is not of uint8")
    if not (isinstance(content, bytes) and content and isinstance(shape, tuple)):
        raise ValueError("it holds an array of odd shape or content")
    if len(shape) > 8 or not all(type(n) is int and n > 0 for n in shape):
        raise ValueError("it holds an array of odd shape or content")
    if math.prod(shape) != len(content):
        raise ValueError("it holds an array whose shape does not fit its bytes")
    flat = np.frombuffer(content, dtype=np.uint8)
    item.content = flat.reshape(shape, order="F" if fortran else "C")


def _bytes(text: str) -> bytes:
    return text.encode("latin1")


_READER = Reader(_call, _set_state, text=_bytes)


def read_plain_pickle(content: bytes) -> dict[str, Any]:
    """The top level of a pickled dictionary.

    Args:
        content: the pickle.

    Returns:
        Its lists, numbers and text as they are stored, its arrays of uint8 as numpy arrays (not
        writable) where they are values of the dictionary itself.

    Raises:
        ValueError: a damaged pickle, one of anything else than a dictionary of plain data, one
            that wants to call a function.

    Example:
        >>> import pickle
        >>> read_plain_pickle(pickle.dumps({"labels": [1, 2]}))
        {'labels': [1, 2]}
        >>> read_plain_pickle(pickle.dumps({"labels": print}))
        Traceback (most recent call last):
        ValueError: it holds a function or an object: 'builtins print'
    """
    result = read_pickle(content, _READER)
    if not isinstance(result, dict):
        raise ValueError("it is no dictionary")
    if not all(isinstance(key, bytes | str) for key in result):
        raise ValueError("its keys are no text")
    return {_text(key): _finished(value) for key, value in result.items()}


def _text(key: bytes | str) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else key


def _finished(value: Any) -> Any:
    if isinstance(value, _Array):
        return value.content
    if isinstance(value, Name):
        raise ValueError(f"it holds a function or an object: '{printable(value.name, 80)}'")
    return value
