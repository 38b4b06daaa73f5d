# SPDX-License-Identifier: Apache-2.0
"""Packages that an extra of d3fast installs: an error about a missing one names the extra.

The optimizers, the losses and ``detoxify`` need torch and numpy. ``safetensors`` is installed with
them, since a repair that took hours must not fail when it is saved.
"""

import sys
from importlib.util import find_spec

# The modules of d3fast[cli]: what the commands, their audits and their reports import.
CLI = ("typer", "rich", "msgspec", "matplotlib", "jinja2", "PIL", "sklearn")


def is_missing(module: str) -> bool:
    """Return whether a top-level module cannot be imported, without importing it.

    Example:
        >>> is_missing("json"), is_missing("no_such_module")
        (False, True)
    """
    if module in sys.modules:
        return sys.modules[module] is None
    return find_spec(module) is None


def require(what: str, *modules: str, extra: str = "cli") -> None:
    """Raise an error that names an extra of d3fast if modules that it installs are missing.

    Args:
        what: begins the message.
        modules: names of top-level modules.
        extra: the extra.

    Raises:
        ModuleNotFoundError: a module that cannot be found.

    Example:
        >>> require("a table", "no_such_module")
        Traceback (most recent call last):
            ...
        ModuleNotFoundError: a table needs no_such_module: pip install 'd3fast[cli]'
    """
    missing = [module for module in modules if is_missing(module)]
    if missing:
        raise ModuleNotFoundError(
            f"{what} needs {', '.join(missing)}: pip install 'd3fast[{extra}]'", name=missing[0]
        )
