# SPDX-License-Identifier: Apache-2.0
"""A reader of pickles that never unpickles.

A pickle is a program for a stack machine, and some of its instructions call functions that the
pickle names. This reader follows the instructions that build plain data. A name is never looked up
or imported; a call goes to a handler of the caller, which knows a few names and refuses all others.
Used for files of ``torch.save`` and for the Python version of CIFAR.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from d3fast.io.untrusted import error_text

MAX_INSTRUCTIONS = 2**21  # 50,000 tensors, or 500,000 numbers; two seconds
_PUSH = {
    "BININT",
    "BININT1",
    "BININT2",
    "LONG1",
    "LONG4",
    "BINBYTES",
    "SHORT_BINBYTES",
    "BINBYTES8",
    "BYTEARRAY8",
    "BINUNICODE",
    "SHORT_BINUNICODE",
    "BINUNICODE8",
    "BINFLOAT",
}
_STRINGS = ("BINSTRING", "SHORT_BINSTRING")  # of Python 2
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()
_LONG_NAME = 500


class AsksForCode(ValueError):
    """Raised on a pickle that names something other than plain data; ``args[0]`` is the name."""


@dataclass(frozen=True)
class Name:
    """A function or class that a pickle names, ``"module attribute"``; only ever compared."""

    name: str


@dataclass(frozen=True)
class Inert:
    """An object of a class that a pickle names; it is never made, and what fills it is dropped.

    Attributes:
        name: ``"module.Class"``.
    """

    name: str


class _OtherKey:
    """Placeholder of a key that is neither text nor a number.

    Hashing or printing nested tuples, which a pickle may build, takes unbounded time.
    """

    def __repr__(self) -> str:
        return "of several parts"


def plain_key(key: Any) -> Any:
    """Return the key itself if it is text or a number, else a placeholder."""
    return key if key is None or isinstance(key, str | bytes | int | float) else _OtherKey()


def _refuse_persistent(identity: Any) -> Any:
    raise ValueError("it refers to things outside itself")


@dataclass(frozen=True)
class Handlers:
    """Handlers of the instructions that are more than plain data.

    Attributes:
        call: receives the name of a function or class and a tuple of arguments.
        set_state: receives an object and the state to give it.
        find: receives a name that the pickle refers to.
        persistent: receives the identifier of an object stored outside the pickle.
        text: converts a string of Python 2, decoded as Latin-1.
        new: receives the name of a class of which the pickle makes an object; ``call`` if ``None``.
    """

    call: Callable[[str, tuple[Any, ...]], Any]
    set_state: Callable[[Any, Any], None]
    find: Callable[[str], Any] = Name
    persistent: Callable[[Any], Any] = _refuse_persistent
    text: Callable[[str], Any] = str
    new: Callable[[str], Any] | None = None


class _Machine:
    """The stack machine without the instructions that could do harm."""

    def __init__(self, handlers: Handlers) -> None:
        self.handlers = handlers
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def follow(self, name: str, argument: Any) -> None:
        if name in _PUSH:
            self.stack.append(argument)
        elif name in _STRINGS:
            self.stack.append(self.handlers.text(argument))
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            self.stack.append(tuple(self._pop(_TUPLES[name])))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name not in ("PROTO", "FRAME", "STOP"):
            self._build(name, argument)

    def _build(self, name: str, argument: Any) -> None:
        if name == "MARK":
            self.stack.append(_MARK)
        elif name == "EMPTY_LIST":
            self.stack.append([])
        elif name == "EMPTY_DICT":
            self.stack.append({})
        elif name == "EMPTY_SET":
            self.stack.append(self._new(Name("builtins set"), ()))
        elif name == "FROZENSET":
            self._pop_to_mark()
            self.stack.append(self._new(Name("builtins frozenset"), ()))
        elif name == "TUPLE":
            self.stack.append(tuple(self._pop_to_mark()))
        elif name in ("APPEND", "APPENDS"):
            items = self._pop_to_mark() if name == "APPENDS" else self._pop(1)
            self._fill(list, lambda kept: kept.extend(items))
        elif name in ("SETITEM", "SETITEMS"):
            items = self._pop_to_mark() if name == "SETITEMS" else self._pop(2)
            pairs = zip(map(plain_key, items[::2]), items[1::2], strict=True)
            self._fill(dict, lambda kept: kept.update(pairs))
        elif name == "ADDITEMS":
            self._pop_to_mark()
            self._fill(Inert, lambda kept: None)
        else:
            self._refer(name, argument)

    def _refer(self, name: str, argument: Any) -> None:
        if name == "GLOBAL":
            self.stack.append(self._find(argument))
        elif name == "STACK_GLOBAL":
            self.stack.append(self._find(*self._pop(2)))
        elif name == "INST":
            self.stack.append(self._call(self._find(argument), tuple(self._pop_to_mark())))
        elif name == "OBJ":
            function, *arguments = self._pop_to_mark()
            self.stack.append(self._call(function, tuple(arguments)))
        elif name == "REDUCE":
            self.stack.append(self._call(*self._pop(2)))
        elif name in ("NEWOBJ", "NEWOBJ_EX"):
            function, arguments, *_ = self._pop(2 + name.endswith("_EX"))
            self.stack.append(self._new(function, arguments))
        elif name == "BUILD":
            (state,) = self._pop(1)
            self.handlers.set_state(self.stack[-1], state)
        elif name == "BINPERSID":
            self.stack.append(self.handlers.persistent(self._pop(1)[0]))
        else:
            raise ValueError(f"its instruction {name} does not build plain data")

    def _find(self, *parts: str) -> Any:
        if sum(map(len, parts)) > _LONG_NAME:  # it is copied at each reference
            raise ValueError("it names something by a name that is too long")
        return self.handlers.find(" ".join(parts))

    def _call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise ValueError("it calls something that is no function")
        return self.handlers.call(function.name, arguments)

    def _new(self, kind: Any, arguments: Any) -> Any:
        if self.handlers.new is None:
            return self._call(kind, arguments)
        if not isinstance(kind, Name):
            raise ValueError("it makes an object of something that is no class")
        return self.handlers.new(kind.name)

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

    def _fill(self, kind: type, fill: Callable[[Any], None]) -> None:
        if type(self.stack[-1]) is kind:
            fill(self.stack[-1])
        elif not isinstance(self.stack[-1], Inert):
            raise ValueError("it fills something that is not there")


def read_pickle(
    content: bytes | BinaryIO, handlers: Handlers, limit: int = MAX_INSTRUCTIONS
) -> Any:
    """Return the object that a pickle builds.

    Args:
        content: the pickle; a file is left at the byte after it.
        handlers: see ``Handlers``.
        limit: limit on the number of instructions.

    Returns:
        Lists, tuples, dictionaries, numbers and text, and the handlers' results for the rest.
        Containers may contain themselves.

    Raises:
        AsksForCode: raised by a handler on a name or a call.
        ValueError: a damaged pickle, an instruction that does not build plain data, more
            than ``limit`` instructions.

    Example:
        >>> import pickle
        >>> read_pickle(pickle.dumps([1, {"a": (2.5, None)}]), Handlers(print, print))
        [1, {'a': (2.5, None)}]
    """
    machine = _Machine(handlers)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            if count >= limit:
                raise ValueError(f"it has more than {limit} instructions")
            machine.follow(opcode.name, argument)
        (result,) = machine.stack
    except (AsksForCode, ValueError):
        raise
    except Exception as error:  # instructions out of place raise all kinds
        raise ValueError(f"it is a damaged pickle: {error_text(error)}") from None
    return result
