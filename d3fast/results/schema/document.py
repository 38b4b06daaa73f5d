# SPDX-License-Identifier: Apache-2.0
"""The envelope of a results file, and what the files of an audit say of their origin."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from d3fast.results.schema.fields import Count, Name, Record, Sha256

_MAX_ROWS = 200_000
_MAX_CLASSES = 100_000


class Envelope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every field of a results file of version 1 but ``schema`` and ``version``; all are required.

    A missing field is not filled in: it would describe the machine that reads the file.
    """

    command: str
    settings: dict[str, Any]
    rows: Annotated[list[dict[str, Any]], Meta(max_length=_MAX_ROWS)]
    versions: dict[str, Any]
    machine: dict[str, Any]
    commit: str | None
    created: str


_Short = Annotated[str, Meta(extra={"characters": 120})]


class Settings(Record, frozen=True, kw_only=True):
    """The settings of an audit that its page shows.

    Attributes:
        model: specification that the model was built from.
        checkpoint: name of the suspect's file.
        sha256: of that file.
        classes: names of all classes; empty where they are not listed.
        repaired: SHA-256 by name of the repaired models, of spectrum.json.
    """

    model: _Short | None = None
    checkpoint: _Short | None = None
    sha256: Sha256 | None = None
    classes: Annotated[tuple[Name, ...], Meta(max_length=_MAX_CLASSES)] | None = None
    repaired: dict[str, Any] | None = None


class Versions(Record, frozen=True, kw_only=True):
    """Versions that a file was written with."""

    d3fast: Name | None = None
    torch: Name | None = None


class Machine(Record, frozen=True, kw_only=True):
    """The machine that a file was written on."""

    cpu: Name | None = None
    cores: Count | None = None
    system: Name | None = None
    gpus: Annotated[tuple[Name, ...], Meta(max_length=64)] | None = None


class Origin(Record, frozen=True, kw_only=True):
    """How one document of an audit was made.

    Attributes:
        command: the command line.
        created: UTC, ISO 8601.
        versions: of d3fast and torch.
        machine: CPU, cores, GPUs.
        settings: of the audit.
    """

    command: Annotated[str, Meta(extra={"characters": 600})]
    created: Annotated[str, Meta(extra={"characters": 40})]
    versions: Versions
    machine: Machine
    settings: Settings
