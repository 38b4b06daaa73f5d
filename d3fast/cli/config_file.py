# SPDX-License-Identifier: Apache-2.0
"""``--config FILE.toml`` of every command: options by their names, fields of ``D3Config``.

    data = "clean/"          # an option of every command that has it
    device = "cpu"

    [pilot]                  # options of one command
    trials = 4

    [d3]                     # fields of D3Config, for repair and detox
    lr = 0.03

The command line overrides the table of the command, that overrides the top level. The options of
a repair at the top level (``epochs``, ``lr``) override ``[d3]``, and that overrides the preset.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer

from d3fast.detox import D3Config
from d3fast.detox.toml_file import D3_TABLE
from d3fast.io.toml_file import read_toml
from d3fast.io.untrusted import printable

_FIELDS = {field.name for field in fields(D3Config)}


def _names(command: Any) -> dict[str, Any]:
    """Return the parameters of a command by the names that a file may use; no deprecated ones."""
    found = {}
    for param in command.params:
        if getattr(param, "hidden", False):
            continue
        for name in (param.name, *getattr(param, "opts", ())):
            found[name.lstrip("-").replace("-", "_")] = param
    return found


def _below(command: Any, path: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a command and all below it by name: ``benchmark``, ``benchmark.attacks``."""
    found = {".".join(path): command}
    for name, sub in getattr(command, "commands", {}).items():
        found |= _below(sub, (*path, name))
    return found


def _value(value: Any, param: Any) -> Any:
    if isinstance(value, list) and not param.multiple and getattr(param, "nargs", 1) == 1:
        return ",".join(map(str, value))
    return value


def _unknown(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"no command has an option {name!r:.60}{hint}"


def option_values(table: Mapping[str, Any], root: Any, name: str) -> dict[str, Any]:
    """Return the values that a file gives to the options of one command.

    Args:
        table: of the file.
        root: the click command ``d3fast``.
        name: of the command, as in ``benchmark.attacks``.

    Raises:
        ValueError: a name that no command has, or a table of no command.
    """
    commands = _below(root)
    own, every = _names(commands[name]), set[str]()
    for command in commands.values():
        every |= set(_names(command))
    tables = {key.split(".")[-1] for key in commands} | {D3_TABLE}
    given: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            if key not in tables:
                raise ValueError(_unknown(key, tables))
            continue
        option = key.replace("-", "_")
        if option not in every and option not in _FIELDS:
            raise ValueError(_unknown(key, every | _FIELDS))
        if option in own:
            given[own[option].name] = _value(value, own[option])
    for key, value in (table.get(name.split(".")[-1]) or {}).items():
        option = key.replace("-", "_")
        if option not in own:
            raise ValueError(f"[{name.split('.')[-1]}] has {_unknown(key, own)[3:]}")
        given[own[option].name] = _value(value, own[option])
    return given


def _read(context: typer.Context, path: Path | None) -> Path | None:
    """Take the values of a file as the defaults of a command's options."""
    if path is None or context.resilient_parsing:
        return path
    root: Any = context.find_root()
    name = context.command_path.removeprefix(root.command_path).strip().replace(" ", ".")
    table = read_toml(path)
    try:
        given = option_values(table, root.command, name)
    except ValueError as error:
        raise ValueError(f"{printable(path)}: {error}") from None
    context.default_map = {**(context.default_map or {}), **given}
    return path


@dataclass(frozen=True)
class ConfigFile:
    """The option ``--config``.

    Attributes:
        config: the TOML file.
    """

    config: Annotated[
        Path | None,
        typer.Option(help="TOML file with values of these options.", callback=_read, is_eager=True),
    ] = None
