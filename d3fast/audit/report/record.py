# SPDX-License-Identifier: Apache-2.0
"""The record of an audit: what was done to which bytes, in one file that can be signed.

record.json holds the hashes of the suspect, of the samples, of the documents of the audit and of
every repaired file, with the settings, versions and command lines. It is signed by a tool made for
it (``ssh-keygen -Y sign``, ``cosign sign-blob``: docs/gate.md); d3fast holds no keys.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from d3fast.audit.report.documents import Card
from d3fast.audit.report.facts import Facts, facts_of
from d3fast.audit.report.folder import read_audit
from d3fast.audit.resolve import CARD, INSPECTION, PILOT, SPECTRUM, WEIGHTS
from d3fast.io.files import atomic_write, sha256
from d3fast.io.untrusted import error_text, printable, read_limited
from d3fast.results.schema.fields import Record, Sha256, read_record
from d3fast.results.store import read_results

RECORD = "record.json"
SCHEMA = "d3fast.record"
_DOCUMENTS = (INSPECTION, WEIGHTS, CARD, PILOT, SPECTRUM)
_MAX_BYTES = 2**22
_MAX_FILES = 10_000


def record(
    facts: Facts, card: Card | None, files: Mapping[str, str], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the record of an audit as JSON values.

    Args:
        facts: of the suspect.
        card: of a repair, or ``None``.
        files: SHA-256 by path inside the audit folder: documents and repaired files.
        settings: of the audit, from its latest document.
    """
    after = None
    if card is not None:
        after = {
            "output": card.repair.output,
            "sha256": card.repair.output_sha256,
            "suspicious": card.repaired.suspicious,
            "accuracy_points_lost": card.repair.acc_drop,
            "within_limit": card.repair.within_limit,
        }
    versions = facts.origin.versions
    return {
        "schema": SCHEMA,
        "version": 1,
        "command": facts.origin.command,
        "created": facts.origin.created,
        "versions": {"d3fast": versions.d3fast, "torch": versions.torch},
        "suspect": {
            "name": facts.name,
            "model": facts.spec,
            "sha256": facts.sha256,
            "suspicious": facts.suspicious,
            "flagged_by": [row.name for row in facts.detectors if row.flagged],
        },
        "repaired": after,
        "settings": dict(settings),
        "files": dict(sorted(files.items())),
    }


def audited_files(folder: Path, output: str | None) -> dict[str, str]:
    """Return the SHA-256 of every document of an audit and of every file of a repair.

    Args:
        folder: of the audit.
        output: name of the repaired file or folder, or ``None``.

    Raises:
        ValueError: more than 10,000 files, or a special file.
        OSError: a file that cannot be read.
    """
    found = [folder / name for name in _DOCUMENTS if (folder / name).is_file()]
    if output is not None:
        whole = folder / output
        inner = (
            sorted(path for path in whole.rglob("*") if path.is_file()) if whole.is_dir() else []
        )
        found += inner or [whole] * whole.is_file()
    if len(found) > _MAX_FILES:
        raise ValueError(f"{printable(folder)} has {len(found)} files, more than {_MAX_FILES}")
    return {path.relative_to(folder).as_posix(): sha256(path) for path in found}


def record_of(folder: Path, newer: Path | None = None) -> dict[str, Any]:
    """Return the record of the audit in a folder.

    Args:
        folder: of the audit.
        newer: folder of files that are to replace those of ``folder``.

    Raises:
        ValueError: an audit without an inspection; a document that cannot be read.
        OSError: a file that cannot be read.
    """
    audit = read_audit(folder, newer)
    latest = next(name for name in (CARD, INSPECTION, WEIGHTS) if name in audit.origins)
    place = folder if newer is None or not (newer / latest).exists() else newer
    output = None if audit.card is None else audit.card.repair.output
    files = audited_files(folder, output if newer is None else None)
    if newer is not None:
        files |= audited_files(newer, output)
    settings = read_results(place / latest).settings
    return record(facts_of(audit), audit.card, files, settings)


def write_record(folder: Path, document: Mapping[str, Any]) -> Path:
    """Write record.json with sorted keys, so that the same record has the same bytes."""
    path = folder / RECORD
    text = json.dumps(document, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return path


class _Record(Record, frozen=True, kw_only=True):
    """The part of a record that ``differences`` reads."""

    schema: str
    version: Annotated[int, Meta(ge=1, le=1)]
    files: Annotated[dict[str, Sha256], Meta(max_length=_MAX_FILES)]


def differences(folder: Path) -> list[str]:
    """Compare the files of an audit folder with its record; the folder may be hostile.

    Returns:
        One line per file that is missing, changed or not in the record; none if all agree.

    Raises:
        ValueError: a file that is no record.
        OSError: a file that cannot be read.
    """
    path = folder / RECORD
    try:
        held = read_record(json.loads(read_limited(path, _MAX_BYTES)), _Record)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{printable(path)} is no record: {error_text(error)}") from None
    if held.schema != SCHEMA:
        raise ValueError(f"{printable(path)} is no record: schema {printable(held.schema, 40)}")
    # Of the names in the folder alone: a record may name what lies outside.
    outputs = {name.partition("/")[0] for name in held.files} - {"", ".", "..", *_DOCUMENTS}
    now = audited_files(folder, min(outputs, default=None))
    lines = []
    for name in sorted({*held.files, *now}):
        shown = printable(name, 120)
        if name not in now:
            lines.append(f"{shown} is missing")
        elif name not in held.files:
            lines.append(f"{shown} is not in the record")
        elif held.files[name] != now[name]:
            lines.append(f"{shown} differs from the record")
    return lines
