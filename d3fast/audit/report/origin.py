# SPDX-License-Identifier: Apache-2.0
"""Where a document of a case is from: command, time, versions, machine, and whose it is."""

from dataclasses import dataclass

from d3fast.io.untrusted import printable
from d3fast.results.rows import digest, integer, listed, maybe, text
from d3fast.results.store import Results


@dataclass(frozen=True)
class Origin:
    """Of one document, all of it printable.

    Attributes:
        command: the command line that made it.
        made: when, and with which versions.
        machine: on what.
        model: what the model was built from, or ``None``.
        checkpoint: name of the suspect's file, or ``None``.
        sha256: of that file, or ``None``.
    """

    command: str
    made: str
    machine: str
    model: str | None
    checkpoint: str | None
    sha256: str | None


def origin(results: Results) -> Origin:
    """What the envelope of a document says.

    Raises:
        ValueError: a field that cannot be.
    """
    settings = {**results.settings, "kind": "settings"}
    return Origin(
        command=printable(results.command, 600),
        made=_made(results),
        machine=_machine(results),
        model=maybe(text, settings, "model", most=120),
        checkpoint=maybe(text, settings, "checkpoint", most=120),
        sha256=maybe(digest, settings, "sha256"),
    )


def _made(results: Results) -> str:
    versions = {**results.versions, "kind": "versions"}
    shown = (f"{key} {maybe(text, versions, key, most=40) or '?'}" for key in ("d3fast", "torch"))
    when = printable(results.created, 40).replace("T", " ").replace("+00:00", " UTC")
    return ", ".join([when, *shown])


def _machine(results: Results) -> str:
    machine = {**results.machine, "kind": "machine"}
    cores = maybe(integer, machine, "cores")
    gpus = maybe(listed, machine, "gpus", most=64) or []
    parts = [
        maybe(text, machine, "cpu", most=80),
        None if cores is None else f"{cores} cores",
        maybe(text, machine, "system", most=80),
        *(printable(gpu, 80) for gpu in gpus[:8]),
    ]
    return ", ".join(part for part in parts if part)
