# SPDX-License-Identifier: Apache-2.0
"""Pickled dictionaries of lists and byte arrays, read without unpickling.

Of the calls in a pickle only one is followed: the rebuilding of a numpy array of uint8, done here
from its bytes; see ``d3fast.io.pickles``. The Python version of CIFAR is stored like this (by
Python 2, whose text is bytes).
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from d3fast.io.pickles import Handlers, Name, read_pickle
from d3fast.io.untrusted import printable

_NUMPY = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")


@dataclass
class _Array:
    """An array that is being rebuilt."""

    content: Any = None


@dataclass
class _Dtype:
    """The dtype of an array."""

    code: Any


def _call(name: str, arguments: tuple[Any, ...]) -> Any:
    module, _, attribute = name.partition(" ")
    if module in _NUMPY and attribute == "_reconstruct":
        return _Array()
    if module in _NUMPY and attribute == "dtype":
        return _Dtype(arguments[0])
    raise ValueError(f"it calls '{printable(name, 80)}'")


def _set_state(item: Any, state: Any) -> None:
    if isinstance(item, _Dtype):  # byte order and the like do not matter to bytes
        return
    if not isinstance(item, _Array):
        raise ValueError("it sets the state of an object that is not an array")
    _, shape, dtype, fortran, content = state
    if not isinstance(dtype, _Dtype) or dtype.code not in ("u1", b"u1"):
        raise ValueError("it holds an array that is not of uint8")
    if not (isinstance(content, bytes) and content and isinstance(shape, tuple)):
        raise ValueError("it holds an array of invalid shape or content")
    if len(shape) > 8 or not all(type(n) is int and n > 0 for n in shape):
        raise ValueError("it holds an array of invalid shape or content")
    if math.prod(shape) != len(content):
        raise ValueError("it holds an array whose shape does not fit its bytes")
    flat = np.frombuffer(content, dtype=np.uint8)
    item.content = flat.reshape(shape, order="F" if fortran else "C")


def _bytes(text: str) -> bytes:
    return text.encode("latin1")


_HANDLERS = Handlers(_call, _set_state, text=_bytes)


def read_plain_pickle(content: bytes) -> dict[str, Any]:
    """Return the dictionary that a pickle holds.

    Args:
        content: the pickle.

    Returns:
        Lists, numbers and text as stored; arrays of uint8 that are values of the dictionary itself
        as numpy arrays (not writable).

    Raises:
        ValueError: a damaged pickle, one of anything else than a dictionary of plain data, or one
            that calls a function.

    Example:
        >>> import pickle
        >>> read_plain_pickle(pickle.dumps({"labels": [1, 2]}))
        {'labels': [1, 2]}
        >>> read_plain_pickle(pickle.dumps({"labels": print}))
        Traceback (most recent call last):
        ValueError: it holds a function or an object: 'builtins print'
    """
    result = read_pickle(content, _HANDLERS)
    if not isinstance(result, dict):
        raise ValueError("it is not a dictionary")
    if not all(isinstance(key, bytes | str) for key in result):
        raise ValueError("its keys are not text")
    return {_text(key): _value(value) for key, value in result.items()}


def _text(key: bytes | str) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else key


def _value(value: Any) -> Any:
    if isinstance(value, _Array):
        return value.content
    if isinstance(value, Name):
        raise ValueError(f"it holds a function or an object: '{printable(value.name, 80)}'")
    return value
