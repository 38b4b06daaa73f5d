# SPDX-License-Identifier: Apache-2.0
"""Read an audit folder: the input of ``d3fast report``.

A page must not mix two models. card.json decides which model the folder is about, then
inspect.json, then pilot.json; documents about another model are left out, each with a warning. A
document without a hash is taken to be about the same model.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from d3fast.audit.model_report import REPAIRED, SUSPECT, ModelReport, class_names
from d3fast.audit.report.documents import (
    Card,
    PilotReport,
    ScanReport,
    SpectrumReport,
    parse_card,
    parse_pilot,
    parse_scan,
    parse_spectrum,
    parse_suspect,
)
from d3fast.audit.report.pictures import checked_picture
from d3fast.audit.resolve import CARD, INSPECTION, PILOT, SPECTRUM, WEIGHTS
from d3fast.io.files import weights_digest
from d3fast.io.paths import check_inside
from d3fast.results.schema.document import Origin
from d3fast.results.schema.fields import read_record
from d3fast.results.store import Results, read_results

COMMANDS = {
    INSPECTION: "d3fast inspect",
    PILOT: "d3fast pilot",
    CARD: "d3fast detox",
    SPECTRUM: "d3fast spectrum",
    WEIGHTS: "d3fast check",
}

_MAX_PICTURES = 16  # of a model

Pictures = Mapping[tuple[str, int], str]  # by role and class
Checked = TypeVar("Checked")


@dataclass(frozen=True)
class AuditDocuments:
    """The checked content of an audit folder.

    Attributes:
        origins: command, versions and machine by file name; without the files left out.
        inspection: the suspect, from inspect.json.
        card: card.json.
        pilot: pilot.json.
        spectrum: spectrum.json.
        weights: weights.json.
        pictures: of inverted triggers, decoded and encoded again.
        classes: names of all classes, or none.
        output_matches: the repaired file in the folder has the hash that the card gives; ``None``
            without a card, without the file or where it was not compared.
        warnings: one sentence per document or file that does not belong to the others.
    """

    origins: Mapping[str, Origin]
    inspection: ModelReport | None
    card: Card | None
    pilot: PilotReport | None
    spectrum: SpectrumReport | None
    weights: ScanReport | None
    pictures: Pictures
    classes: tuple[str, ...]
    output_matches: bool | None
    warnings: tuple[str, ...]

    @property
    def before(self) -> ModelReport | None:
        """The suspect, from the card where there is one: measured on the repair's samples."""
        if self.card is None:
            return self.inspection
        suspect = self.card.suspect
        inspected = suspect.verdict or suspect.inversions or suspect.detectors
        return suspect if inspected or self.inspection is None else self.inspection

    @property
    def after(self) -> ModelReport | None:
        """The repaired model."""
        return None if self.card is None else self.card.repaired


def _named(name: str, read: Callable[..., Checked], *arguments: Any) -> Checked:
    """Call a reader; its error text begins with the name of the file."""
    try:
        return read(*arguments)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _origin(results: Results) -> Origin:
    fields = ("command", "created", "versions", "machine", "settings")
    return read_record({name: getattr(results, name) for name in fields}, Origin)


def _pictures(report: ModelReport, role: str) -> dict[tuple[str, int], str]:
    shown = {row.target: row.picture for row in report.inversions if row.picture}
    if len(shown) > _MAX_PICTURES:
        raise ValueError(f"pictures of a model must be at most {_MAX_PICTURES}, got {len(shown)}")
    return {(role, target): checked_picture(picture) for target, picture in shown.items()}


def _output_matches(output: Path, card: Card) -> bool | None:
    if not output.exists():
        return None
    return weights_digest(output) == card.repair.output_sha256


def _output_warnings(card: Card, matches: bool | None) -> list[str]:
    if matches:
        return []
    name = card.repair.output
    if matches is None:
        return [f"{name} is not in the folder. Compare the SHA-256 below before you use a copy."]
    return [
        f"{name} in the folder is not the file that {CARD} describes: its SHA-256 differs. "
        "This page does not describe it."
    ]


def _about_one_model(hashes: Mapping[str, str | None]) -> tuple[str, set[str], list[str]]:
    """Return the deciding document, those about the same suspect, a warning per other one."""
    order = sorted(hashes, key=(CARD, INSPECTION, WEIGHTS, PILOT, SPECTRUM).index)
    deciding = next((name for name in order if hashes[name]), order[0])
    own = hashes[deciding]
    kept, warnings = set(), []
    for name, digest in hashes.items():
        if digest is None or digest == own:
            kept.add(name)
        else:
            warnings.append(
                f"{name} is about another model (SHA-256 {digest[:12]}…) than {deciding} "
                f"({str(own)[:12]}…) and is left out. Run {COMMANDS[name]} again."
            )
    return deciding, kept, warnings


def _spectrum_warnings(spectrum: Origin, card: Card | None) -> list[str]:
    """Return a warning if a spectrum was measured on other repaired files than the card's."""
    repaired = spectrum.settings.repaired
    if card is None or not repaired or card.repair.output_sha256 in repaired.values():
        return []
    return [
        f"{SPECTRUM} is about other repaired files than {CARD} and is left out. "
        f"Run {COMMANDS[SPECTRUM]} again."
    ]


def read_audit(
    folder: str | Path,
    newer: Path | None = None,
    *,
    hash_output: bool = True,
    root: Path | None = None,
) -> AuditDocuments:
    """Read those of inspect.json, weights.json, pilot.json, card.json, spectrum.json that exist.

    Args:
        folder: of the audit.
        newer: folder of files that are to replace those of ``folder``.
        hash_output: compare the repaired file with the card; it is read whole.
        root: folder that a link to the repaired file may not lead out of; ``None`` for no limit.

    Raises:
        ValueError: no document, or one that cannot be read; one line that names it.
        OSError: a file that cannot be opened.
    """
    folder = Path(folder)

    def place(name: str) -> Path:
        return newer / name if newer is not None and (newer / name).exists() else folder / name

    read = {name: read_results(place(name)) for name in COMMANDS if place(name).exists()}
    if not read:
        sources = ", ".join(f"{name} ({command})" for name, command in COMMANDS.items())
        raise ValueError(f"{folder} has nothing to report on; it needs one of {sources}")
    origins = {name: _named(name, _origin, results) for name, results in read.items()}
    hashes = {name: origin.settings.sha256 for name, origin in origins.items()}
    card = suspect = None
    if CARD in read:
        card = _named(CARD, parse_card, read[CARD].rows)
        hashes[CARD] = card.suspect.model.sha256
    if INSPECTION in read:
        suspect = _named(INSPECTION, parse_suspect, read[INSPECTION].rows)
        hashes[INSPECTION] = suspect.model.sha256
    deciding, kept, warnings = _about_one_model(hashes)
    if SPECTRUM in kept and (other := _spectrum_warnings(origins[SPECTRUM], card)):
        kept.remove(SPECTRUM)
        warnings += other
    inspection = suspect if INSPECTION in kept else None
    pictures: dict[tuple[str, int], str] = {}
    for name, report, role in (
        (INSPECTION, inspection, SUSPECT),
        (CARD, card and card.suspect, SUSPECT),
        (CARD, card and card.repaired, REPAIRED),
    ):
        if report is not None:
            pictures |= _named(name, _pictures, report, role)
    matches = None
    if hash_output and card is not None:
        output = place(card.repair.output)
        if root is not None:
            check_inside(output, root)
        matches = _output_matches(output, card)
        warnings += _output_warnings(card, matches)
    return AuditDocuments(
        origins={name: origins[name] for name in COMMANDS if name in kept},
        inspection=inspection,
        card=card,
        pilot=_named(PILOT, parse_pilot, read[PILOT].rows) if PILOT in kept else None,
        spectrum=_named(SPECTRUM, parse_spectrum, read[SPECTRUM].rows)
        if SPECTRUM in kept
        else None,
        weights=_named(WEIGHTS, parse_scan, read[WEIGHTS].rows) if WEIGHTS in kept else None,
        pictures=pictures,
        classes=_named(deciding, class_names, read[deciding].settings),
        output_matches=matches,
        warnings=tuple(warnings),
    )
