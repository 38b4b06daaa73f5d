# SPDX-License-Identifier: Apache-2.0
"""Registries that installed packages extend by entry points, and objects named by their module.

A ``Registry`` holds built-in objects and finds those of other packages when they are asked for, so
that a package that cannot be imported breaks nothing but its own names. Distributions of the
current folder are no plugins: a folder beside a suspect checkpoint must not run code.
"""

import hashlib
import importlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, distributions, packages_distributions, version
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

_PREFIX = "d3fast."  # of all groups
T_co = TypeVar("T_co", covariant=True)
_SPEC = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def is_spec(text: Any) -> bool:
    """Return whether a text has the form ``package.module:name``.

    Example:
        >>> is_spec("torch.nn:Linear"), is_spec("a/b.py:make")
        (True, False)
    """
    return isinstance(text, str) and _SPEC.fullmatch(text) is not None


def first_line(error: BaseException) -> str:
    """Return the type and the first line of an error."""
    return f"{type(error).__name__}: {error}".split("\n")[0].rstrip(": ")


def _is_missing(module: str, error: ImportError) -> bool:
    """Return whether the module itself, or a package that contains it, is missing."""
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    return missing is not None and (module == missing or module.startswith(f"{missing}."))


def import_object(what: str, spec: str) -> Any:
    """Import the object that ``package.module:name`` names, along ``sys.path``.

    Args:
        what: begins the message of an error.
        spec: module and name; the name may have dots.

    Raises:
        ValueError: another form; a module or a name that is missing; a module that raises.
    """
    if not is_spec(spec):
        raise ValueError(f"{what} must be package.module:name, got {spec!r}")
    module, _, name = spec.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except Exception as error:
        if isinstance(error, ImportError) and _is_missing(module, error):
            raise ValueError(
                f"{what} {spec!r}: there is no module {error.name!r} in the folders of sys.path"
            ) from None
        raise ValueError(
            f"{what} {spec!r}: importing {module} raised {first_line(error)}"
        ) from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{what} {spec!r}: {module} has no {name!r}")
        found = getattr(found, part)
    return found


@cache
def origin(spec: str) -> str:
    """Return what tells versions of ``package.module:name`` apart; it imports the module.

    Returns:
        The distribution and its version; a digest of the module's file where there is none.

    Example:
        >>> origin("numpy.linalg:norm").split()[0]
        'numpy'
    """
    module = spec.partition(":")[0]
    packages = packages_distributions().get(module.partition(".")[0])
    if packages:
        return f"{packages[0]} {version(packages[0])}"
    file = getattr(importlib.import_module(module), "__file__", None)
    if file is None:
        return "no version"
    return f"sha256 {hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]}"


_Points: TypeAlias = Mapping[str, tuple[tuple[str, EntryPoint], ...]]


@cache
def _points(path: tuple[str, ...]) -> Mapping[str, _Points]:
    """Return the entry points by group and name, each with its distribution and version."""
    found: dict[str, dict[str, tuple[tuple[str, EntryPoint], ...]]] = {}
    seen = set()
    for package in distributions(path=list(path)):
        if _PREFIX not in (package.read_text("entry_points.txt") or ""):
            continue
        name = str(package.metadata["Name"])
        if name in seen:  # an earlier folder of the path wins
            continue
        seen.add(name)
        for point in package.entry_points:
            named = found.setdefault(point.group, {})
            entry = (f"{name} {package.version}", point)
            named[point.name] = (*named.get(point.name, ()), entry)
    return found


def _path() -> tuple[str, ...]:
    here = os.path.realpath(os.getcwd())
    return tuple(entry for entry in sys.path if entry and os.path.realpath(entry) != here)


class Registry(Mapping[str, T_co]):
    """Objects by name: built-in ones in their order, then those of installed packages.

    Iterating gives names and imports nothing. ``find`` takes ``package.module:name`` too.

    Attributes:
        what: a word for the objects in errors.
        group: the group of entry points.
        builtin: the objects of d3fast itself.

    Example:
        >>> shapes = Registry("shape", "d3fast.shapes", {"round": 1, "square": 2})
        >>> list(shapes), shapes["round"], shapes.origin("round")
        (['round', 'square'], 1, None)
        >>> shapes.find("oval")
        Traceback (most recent call last):
            ...
        ValueError: shape must be one of 'round', 'square', or package.module:name, got 'oval'
    """

    def __init__(self, what: str, group: str, builtin: Mapping[str, T_co]) -> None:
        self.what, self.group = what, group
        self.builtin: Mapping[str, T_co] = MappingProxyType(dict(builtin))

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names: built-in ones, then the others in alphabetical order."""
        yield from self.builtin
        yield from (name for name in sorted(self._points()) if name not in self.builtin)

    def __len__(self) -> int:
        """Return the number of names."""
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        """Return whether a name is known; it may still be one that cannot be imported."""
        return name in self.builtin or name in self._points()

    def __getitem__(self, name: str) -> T_co:
        """Return the object of a name.

        Raises:
            KeyError: an unknown name.
            ValueError: two packages that use the name; a package that cannot be imported.
        """
        points = self._points().get(name, ())
        owners = sorted(f"{package} ({point.value})" for package, point in points)
        if name in self.builtin:
            owners.insert(0, "d3fast")
        if not owners:
            raise KeyError(name)
        if len(owners) > 1:
            raise ValueError(
                f"{self.what} {name!r} is a name of {' and '.join(owners)}: uninstall one package, "
                "or name the object by package.module:name"
            )
        if name in self.builtin:
            return self.builtin[name]
        ((package, point),) = points
        found: T_co = import_object(f"{self.what} {name!r} of {package}:", point.value)
        return found

    def find(self, name: str) -> T_co:
        """Return the object of a name or of ``package.module:name``.

        Raises:
            ValueError: an unknown name, two packages that use it, an object that cannot be
                imported.
        """
        if name in self:
            return self[name]
        if is_spec(name):
            found: T_co = import_object(self.what, name)
            return found
        choices = ", ".join(map(repr, self))
        raise ValueError(
            f"{self.what} must be one of {choices}, or package.module:name, got {name!r}"
        )

    def origin(self, name: str) -> str | None:
        """Return package and version of a name that ``find`` takes; ``None`` for a built-in one."""
        if name in self.builtin:
            return None
        points = self._points().get(name)
        return points[0][0] if points else origin(name)

    def origins(self, *names: str | None) -> dict[str, str]:
        """Return package and version of those names that are not built-in, for the key of a job."""
        found = {name: self.origin(name) for name in names if name is not None}
        return {f"{self.what} {name}": text for name, text in found.items() if text is not None}

    def _points(self) -> _Points:
        return _points(_path()).get(self.group, {})
