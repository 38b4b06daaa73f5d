# SPDX-License-Identifier: Apache-2.0
"""Files for gates that ``check`` and ``repair`` write beside an audit: SARIF and CycloneDX."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from d3fast.audit.report.bom import bom
from d3fast.audit.report.facts import facts_of
from d3fast.audit.report.folder import read_audit
from d3fast.audit.report.sarif import sarif
from d3fast.io.files import atomic_write, check_folder, make_folder


@dataclass(frozen=True)
class GateOptions:
    """Files that other tools read."""

    sarif: Annotated[
        Path | None,
        typer.Option(help="Write the findings on the model to this file, as SARIF 2.1.0."),
    ] = None
    bom: Annotated[
        Path | None,
        typer.Option(help="Write a bill of materials to this file, as CycloneDX 1.6."),
    ] = None

    def check(self) -> None:
        """Raise unless the files can be written; called before anything is computed."""
        for path in (self.sarif, self.bom):
            if path is not None:
                check_folder(path.parent)
                if path.exists() and not path.is_file():
                    raise ValueError(f"cannot write {path}: it is not a regular file")

    def write(self, folder: Path, model: str) -> list[str]:
        """Write the files about the audit in a folder; return their names.

        Args:
            folder: of the audit, complete.
            model: as the command line names it.
        """
        if self.sarif is None and self.bom is None:
            return []
        audit = read_audit(folder)
        facts = facts_of(audit)
        if self.sarif is not None:
            _write(self.sarif, sarif(facts, _location(model)))
        if self.bom is not None:
            before = audit.before
            _write(self.bom, bom(facts, None if before is None else before.model, audit.card))
        return [path.name for path in (self.sarif, self.bom) if path is not None]


def _location(model: str) -> str | None:
    """Return the path of a model inside the current folder; no other path is written."""
    path = Path(model)
    if path.is_absolute() or ".." in path.parts or not path.exists():
        return None
    return path.as_posix()


def _write(path: Path, document: Mapping[str, Any]) -> None:
    make_folder(path.parent)
    with atomic_write(path) as temporary:
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
