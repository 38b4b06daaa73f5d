# SPDX-License-Identifier: Apache-2.0
"""The JSON format of results: command, settings, versions, machine, and one row per measurement.

The fields of each kind of row are those of its struct in ``results.schema``. Every file has the
same versioned envelope; a file of a newer version is an error.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from d3fast.io.files import atomic_write
from d3fast.io.untrusted import error_text, printable, read_limited
from d3fast.runtime import environment

SCHEMA = "d3fast.results"
VERSION = 1
_MAX_BYTES = 2**24


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Results:
    """One run of one command.

    Attributes:
        command: the command line that makes these numbers, without paths.
        settings: every choice that went into them.
        rows: the measurements; a struct of ``results.schema`` becomes its JSON fields.
        versions: of d3fast, python and torch.
        machine: CPU, cores, threads, GPUs; no host name.
        commit: git commit of the source checkout, or ``None``.
        created: UTC, ISO 8601.

    Example:
        >>> results = Results("d3fast demo", {"seeds": 1}, ({"seed": 0, "acc": 0.97},))
        >>> results.rows[0]["acc"], results.as_dict()["schema"]
        (0.97, 'd3fast.results')
    """

    command: str
    settings: Mapping[str, Any]
    rows: Sequence[Any]  # mappings, after __post_init__
    versions: Mapping[str, str] = field(default_factory=environment.versions)
    machine: Mapping[str, Any] = field(default_factory=environment.machine)
    commit: str | None = field(default_factory=environment.commit)
    created: str = field(default_factory=_now)

    def __post_init__(self) -> None:
        rows = [row.to_row() if hasattr(row, "to_row") else row for row in self.rows]
        object.__setattr__(self, "rows", rows)

    def as_dict(self) -> dict[str, Any]:
        """Return the document as JSON values."""
        return {"schema": SCHEMA, "version": VERSION, **asdict(self)}

    def write(self, path: str | Path) -> None:
        """Write the document atomically.

        Raises:
            ValueError: a NaN or inf among the numbers, or a folder that does not exist.
        """
        text = self.text()
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def text(self) -> str:
        """Return the document as JSON text.

        Raises:
            ValueError: a NaN or inf among the numbers.
        """
        return json.dumps(self.as_dict(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _not_finite(text: str) -> Any:
    raise ValueError(f"{text} among the numbers")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _not_finite(f"{text:.40}")


def read_results(path: str | Path) -> Results:
    """Read a document that ``Results.write`` wrote; the file may be hostile.

    The envelope is checked, the rows are not: ``results.schema`` reads them.

    Raises:
        ValueError: another document, a newer version, more than 16 MiB or 200,000 rows.
        OSError: a file that cannot be opened.
    """
    import msgspec  # writing needs only torch

    from d3fast.results.schema.document import Envelope
    from d3fast.results.schema.fields import read_record

    path = Path(path)
    name, content = printable(path.name), read_limited(path, _MAX_BYTES)
    try:
        document = json.loads(
            content.decode("utf-8"), parse_constant=_not_finite, parse_float=_finite
        )
    except UnicodeDecodeError:
        raise ValueError(f"{name} is no JSON: it is not UTF-8") from None
    except RecursionError:
        raise ValueError(f"{name} is no JSON that can be read: nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{name} is no JSON: {error_text(error)}") from None
    if not isinstance(document, dict) or document.pop("schema", None) != SCHEMA:
        raise ValueError(f"{name} is no {SCHEMA} document")
    version = document.pop("version", None)
    if type(version) is not int or version != VERSION:
        shown = printable(repr(version), 40)
        raise ValueError(f"{name} has version {shown}, this d3fast reads {VERSION}")
    try:
        envelope = read_record(document, Envelope)
    except ValueError as error:
        raise ValueError(f"{name} is no {SCHEMA} document: {error}") from None
    return Results(**msgspec.structs.asdict(envelope))
