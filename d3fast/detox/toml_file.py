# SPDX-License-Identifier: Apache-2.0
"""Read a ``D3Config`` from a TOML file: fields by name, missing ones from a preset.

preset = "auto"          # or "paper", "authors"

[d3]
clean_weight = 5.0
constraint = "none"      # TOML has no null

Fields may stand at the top level too, as on the command line; they override the table.
"""

import difflib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from d3fast.detox.config import PRESETS, D3Config
from d3fast.io.toml_file import read_toml
from d3fast.runtime.checks import check_choice

D3_TABLE = "d3"
_NULL = "none"


def _values(table: dict[str, Any], path: Path) -> dict[str, Any]:
    known = {field.name: str(field.type) for field in fields(D3Config)}
    given: dict[str, Any] = {}
    for name, value in table.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{path} has no option of D3: {name!r:.60}{hint}")
        if value == _NULL and "None" in known[name]:
            given[name] = None
        elif isinstance(value, list):
            given[name] = tuple(value)
        else:
            given[name] = value
    return given


def read_config(path: str | Path, preset: str | None = None, *, strict: bool = True) -> D3Config:
    r"""Read a configuration.

    Args:
        path: the TOML file.
        preset: preset of the missing fields; that of the file, or ``"auto"``, if ``None``.
        strict: refuse other names at the top level; the options of commands may stand there.

    Raises:
        ValueError: no TOML; an unknown option or preset; a value out of range or of another type.
        OSError: a file that cannot be opened.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as place:
        ...     _ = Path(place, "d3.toml").write_text('preset = "authors"\nlr = 0.05\n')
        ...     config = read_config(Path(place, "d3.toml"))
        >>> config.lr, config.schedule
        (0.05, 'cosine')
    """
    path = Path(path)
    table = read_toml(path)
    own = table.pop("preset", "auto")
    if not isinstance(own, str):
        raise ValueError(f"{path}: preset must be a name, got {own!r:.60}")
    inner = table.pop(D3_TABLE, {})
    if not isinstance(inner, dict):
        raise ValueError(f"{path}: {D3_TABLE} must be a table, got {inner!r:.60}")
    known = {field.name for field in fields(D3Config)}
    outer = {name: v for name, v in table.items() if name in known or strict}
    chosen = own if preset is None else preset
    try:
        check_choice("preset", chosen, PRESETS)
        return replace(PRESETS[chosen](), **_values({**inner, **outer}, path))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from None
