# SPDX-License-Identifier: Apache-2.0
"""Rules of a contract: functions of a case that raise where the case breaks them."""

import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

Rule = Callable[[Any], None]


class Case(Protocol):
    """What rules are applied to: a class, quick options of it, and its exceptions."""

    @property
    def make(self) -> Callable[..., Any]:
        """The class."""

    def rules(self) -> Sequence[Rule]:
        """Return the rules that apply to the class."""


def check(case: Case) -> None:
    """Apply all rules to a case.

    Raises:
        AssertionError: the rules that the case breaks, each with the line that failed.
        RuntimeError: Python runs with ``-O``, which removes assertions.
    """
    if not __debug__:
        raise RuntimeError("python -O removes the assertions of d3fast.testing")
    rules, broken = case.rules(), []
    for rule in rules:
        try:
            rule(case)
        except Exception as error:
            broken.append(f"{rule.__name__}: {_reason(error)}")
    if broken:
        name = getattr(case.make, "__qualname__", repr(case.make))
        shown = "".join(f"\n  {line}" for line in broken)
        raise AssertionError(f"{name} breaks {len(broken)} of {len(rules)} rules:{shown}")


def _reason(error: Exception) -> str:
    """Return the error, and the line of this package that it was raised by."""
    frames = traceback.extract_tb(error.__traceback__)
    folder = Path(__file__).parent
    own = [f for f in frames if Path(f.filename).parent == folder and f.filename != __file__]
    said = f"{type(error).__name__}: {error}".split("\n")[0].rstrip(": ")
    return f"{said} (at {(own or frames)[-1].line})"


@contextmanager
def raises(pattern: str, kind: type[Exception] = ValueError) -> Iterator[None]:
    """Require the block to raise an error whose text has a pattern.

    Raises:
        AssertionError: no error, or one with another text.
    """
    said = None
    try:
        yield
    except kind as error:
        said = str(error)
    assert said is not None, f"nothing raised {kind.__name__} with {pattern!r}"
    assert re.search(pattern, said), f"{said!r} has no {pattern!r}"


def spec_of(made: Any) -> str:
    """Return a class as ``package.module:Name``.

    Example:
        >>> import collections
        >>> spec_of(collections.OrderedDict)
        'collections:OrderedDict'
    """
    return f"{made.__module__}:{made.__qualname__}"
