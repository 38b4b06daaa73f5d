# SPDX-License-Identifier: Apache-2.0
"""Pickled dictionaries of lists and byte arrays, read without unpickling.

A pickle is a program for a small stack machine, and two of its instructions call functions that
it names itself. Here the instructions that build plain data are followed, and a call is followed
in one case: the way numpy stores an array of uint8, which is rebuilt here from its bytes. Nothing
that a file names is looked up, imported or called; any other instruction is refused.

The python version of CIFAR is stored so (by Python 2: text is bytes).
"""

import math
import pickletools
from dataclasses import dataclass
from typing import Any

import numpy as np

_PUSH = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINSTRING", "SHORT_BINSTRING", "BINBYTES",
    "SHORT_BINBYTES", "BINUNICODE", "SHORT_BINUNICODE", "BINFLOAT",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_NUMPY = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
_MARK = object()


@dataclass(frozen=True)
class _Name:
    """A function or class that the pickle names; only ever compared."""

    name: str


@dataclass
class _Array:
    """An array that is being rebuilt."""

    content: Any = None


@dataclass
class _Dtype:
    """The type of an array."""

    code: Any


class _Machine:
    """The stack machine, less everything that could do harm."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def follow(self, name: str, argument: Any) -> None:
        if name in _PUSH:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            self.stack.append(tuple(self._pop(_TUPLES[name])))
        elif name == "GLOBAL":
            self.stack.append(_Name(argument))
        elif name == "STACK_GLOBAL":
            self.stack.append(_Name(" ".join(self._pop(2))))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name not in ("PROTO", "FRAME", "STOP"):
            self._build(name)

    def _build(self, name: str) -> None:
        if name == "MARK":
            self.stack.append(_MARK)
        elif name == "EMPTY_LIST":
            self.stack.append([])
        elif name == "EMPTY_DICT":
            self.stack.append({})
        elif name == "TUPLE":
            self.stack.append(tuple(self._pop_to_mark()))
        elif name in ("APPEND", "APPENDS"):
            items = self._pop_to_mark() if name == "APPENDS" else self._pop(1)
            self._top(list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._pop_to_mark() if name == "SETITEMS" else self._pop(2)
            self._top(dict).update(_pairs(items))
        elif name == "REDUCE":
            self.stack.append(_call(*self._pop(2)))
        elif name == "BUILD":
            (state,) = self._pop(1)
            _set_state(self.stack[-1], state)
        else:
            raise ValueError(f"its instruction {name} is not one of plain data")

    def _pop(self, count: int) -> list[Any]:
        start = len(self.stack) - count
        if start < 0:
            raise IndexError("its stack is empty")
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _pop_to_mark(self) -> list[Any]:
        items = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def _top(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise ValueError("it fills something that is not there")
        return self.stack[-1]


def _pairs(items: list[Any]) -> dict[bytes | str, Any]:
    keys, values = items[::2], items[1::2]
    # The hash of nested tuples takes time without bound; that of text does not.
    if not all(isinstance(key, bytes | str) for key in keys):
        raise ValueError("its keys are no text")
    return dict(zip(keys, values, strict=True))


def _call(function: Any, arguments: Any) -> Any:
    if isinstance(function, _Name) and isinstance(arguments, tuple):
        module, _, attribute = function.name.partition(" ")
        if module in _NUMPY and attribute == "_reconstruct":
            return _Array()
        if module in _NUMPY and attribute == "dtype":
            return _Dtype(arguments[0])
    called = function.name if isinstance(function, _Name) else "something"
    raise ValueError(f"it wants to call {called!r:.80}")


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
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(content):
            if isinstance(argument, str) and opcode.name in ("BINSTRING", "SHORT_BINSTRING"):
                argument = argument.encode("latin1")
            machine.follow(opcode.name, argument)
        (result,) = machine.stack
    except (IndexError, KeyError, TypeError) as error:
        raise ValueError(f"it is a damaged pickle: {error}") from None
    if not isinstance(result, dict):
        raise ValueError("it is no dictionary")
    return {_text(key): _finished(value) for key, value in result.items()}


def _text(key: bytes | str) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else key


def _finished(value: Any) -> Any:
    if isinstance(value, _Array):
        return value.content
    if isinstance(value, _Name):
        raise ValueError(f"it holds a function or an object: {value.name!r:.80}")
    return value
