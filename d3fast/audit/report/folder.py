# SPDX-License-Identifier: Apache-2.0
"""What lies in a case folder, read and checked: the page of ``d3fast report`` is made from it.

Documents of other models than the one at hand are left out and named: a page that mixes two models
would say what is true of neither. The card decides whose case it is, then the inspection, then the
pilot. A document that does not say whose it is stays in.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from d3fast.audit.findings import REPAIRED, SUSPECT, Findings, class_names, findings
from d3fast.audit.report.origin import Origin, origin
from d3fast.audit.report.pictures import checked_picture
from d3fast.audit.report.rows import Repair, Way, epochs, pilot_rows, repair, spectrum_rows, way
from d3fast.audit.resolve import CARD, INSPECTION, PILOT, SPECTRUM
from d3fast.io.files import sha256
from d3fast.results.store import Results, read_results

COMMANDS = {
    INSPECTION: "d3fast inspect",
    PILOT: "d3fast pilot",
    CARD: "d3fast detox",
    SPECTRUM: "d3fast spectrum",
}

_PICTURES = 16  # of a model

Pictures = Mapping[tuple[str, int], str]  # by role and class
Checked = TypeVar("Checked")


@dataclass(frozen=True)
class Card:
    """card.json.

    Attributes:
        suspect: the model as it was.
        repaired: the model as it is now.
        repair: what was done.
        epochs: the course of it.
        way: how far the weights went, or ``None``.
    """

    suspect: Findings
    repaired: Findings
    repair: Repair
    epochs: Sequence[Mapping[str, Any]]
    way: Way | None


@dataclass(frozen=True)
class CaseDocuments:
    """All that was found out in one case.

    Attributes:
        documents: where each is from, by the name of its file; not those that were left out.
        inspection: the suspect, from inspect.json.
        card: card.json.
        pilot: rows of pilot.json.
        spectrum: rows of spectrum.json.
        pictures: of inverted triggers, safe to show.
        classes: names of all classes, or none.
        output_is_the_cards: whether the repaired file in the folder is the one that the card
            speaks of; ``None`` without a card or without the file.
        warnings: what does not belong together, a sentence each.
    """

    documents: Mapping[str, Origin]
    inspection: Findings | None
    card: Card | None
    pilot: Sequence[Mapping[str, Any]]
    spectrum: Sequence[Mapping[str, Any]]
    pictures: Pictures
    classes: tuple[str, ...]
    output_is_the_cards: bool | None
    warnings: tuple[str, ...]

    @property
    def before(self) -> Findings | None:
        """The suspect: as the card has it, whose samples are those of the repaired model."""
        if self.card is None:
            return self.inspection
        card = self.card.suspect
        # A card may leave out what the inspection of the same file has found already.
        bare = card.suspicious is None and not card.inversions and not card.signs
        return self.inspection if bare and self.inspection is not None else card

    @property
    def after(self) -> Findings | None:
        """The repaired model."""
        return None if self.card is None else self.card.repaired


def _named(name: str, read: Callable[..., Checked], *given: Any) -> Checked:
    """What a reader gives; its error begins with the name of the file."""
    try:
        return read(*given)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _card(rows: Sequence[Mapping[str, Any]]) -> Card:
    suspect, repaired, done = findings(rows, SUSPECT), findings(rows, REPAIRED), repair(rows)
    if suspect is None or repaired is None or done is None:
        raise ValueError("must hold a suspect, a repaired model and a repair")
    if (suspect.sha256, repaired.sha256) != (done.input_sha256, done.output_sha256):
        raise ValueError("the hashes of its models are not those of its repair")
    return Card(suspect, repaired, done, epochs(rows), way(rows))


def _suspect(rows: Sequence[Mapping[str, Any]]) -> Findings:
    found = findings(rows, SUSPECT)
    if found is None:
        raise ValueError("holds no suspect")
    return found


def _pictures(found: Findings, role: str) -> dict[tuple[str, int], str]:
    shown = [inverted for inverted in found.inversions if inverted.picture]
    if len(shown) > _PICTURES:
        raise ValueError(f"{len(shown)} pictures of a model, at most {_PICTURES} are read")
    return {(role, i.target): checked_picture(i.picture or "") for i in shown}


def _is_the_cards(folder: Path, card: Card | None) -> bool | None:
    """Whether the repaired file beside a card is the one that the card speaks of."""
    if card is None or not (folder / card.repair.output).is_file():
        return None
    return sha256(folder / card.repair.output) == card.repair.output_sha256


def _warning(card: Card | None, same: bool | None) -> list[str]:
    if card is None or same:
        return []
    name = card.repair.output
    if same is None:
        return [f"{name} is not in the folder; only its hash tells whether another file is it."]
    return [
        f"{name} in the folder is another file than the one that {CARD} describes. "
        "What this page says of the repaired model does not hold for it."
    ]


def _belonging(hashes: Mapping[str, str | None]) -> tuple[str, set[str], list[str]]:
    """The document that decides, those about the same suspect, a sentence about each other one."""
    order = sorted(hashes, key=(CARD, INSPECTION, PILOT, SPECTRUM).index)
    decisive = next((name for name in order if hashes[name]), order[0])
    own = hashes[decisive]
    kept, warnings = set(), []
    for name, found in hashes.items():
        if found is None or found == own:
            kept.add(name)
        else:
            warnings.append(
                f"{name} is about another model (SHA-256 {found[:12]}…) than {decisive} "
                f"({str(own)[:12]}…). It is left out of this page; run {COMMANDS[name]} again."
            )
    return decisive, kept, warnings


def _other_repairs(spectrum: Results, card: Card | None) -> list[str]:
    """A sentence if a spectrum was measured on other repairs than the card's."""
    repaired = spectrum.settings.get("repaired")
    if card is None or not isinstance(repaired, dict) or not repaired:
        return []
    if card.repair.output_sha256 in repaired.values():
        return []
    return [
        f"{SPECTRUM} is about other repaired files than {CARD}. It is left out of this page; "
        f"run {COMMANDS[SPECTRUM]} again."
    ]


def read_case(folder: str | Path) -> CaseDocuments:
    """Read inspect.json, pilot.json, card.json and spectrum.json, those that are there.

    Args:
        folder: of the case.

    Raises:
        ValueError: none of them is there, or one that cannot be used; a line that names it.
        OSError: a file that cannot be read.
    """
    folder = Path(folder)
    read = {n: read_results(folder / n) for n in COMMANDS if (folder / n).exists()}
    if not read:
        made = ", ".join(f"{name} ({command})" for name, command in COMMANDS.items())
        raise ValueError(f"{folder} has nothing to report on; it needs one of {made}")
    origins = {name: _named(name, origin, results) for name, results in read.items()}
    hashes = {name: found.sha256 for name, found in origins.items()}
    card = suspect = None
    if CARD in read:
        card = _named(CARD, _card, read[CARD].rows)
        hashes[CARD] = card.suspect.sha256
    if INSPECTION in read:
        suspect = _named(INSPECTION, _suspect, read[INSPECTION].rows)
        hashes[INSPECTION] = suspect.sha256
    decisive, kept, warnings = _belonging(hashes)
    if SPECTRUM in kept and (other := _other_repairs(read[SPECTRUM], card)):
        kept.remove(SPECTRUM)
        warnings += other
    same = _is_the_cards(folder, card)
    inspection = suspect if INSPECTION in kept else None
    pictures: dict[tuple[str, int], str] = {}
    for name, found, role in (
        (INSPECTION, inspection, SUSPECT),
        (CARD, card and card.suspect, SUSPECT),
        (CARD, card and card.repaired, REPAIRED),
    ):
        if found is not None:
            pictures |= _named(name, _pictures, found, role)
    return CaseDocuments(
        documents={name: origins[name] for name in COMMANDS if name in kept},
        inspection=inspection,
        card=card,
        pilot=_named(PILOT, pilot_rows, read[PILOT].rows) if PILOT in kept else (),
        spectrum=_named(SPECTRUM, spectrum_rows, read[SPECTRUM].rows) if SPECTRUM in kept else (),
        pictures=pictures,
        classes=_named(decisive, class_names, read[decisive].settings),
        output_is_the_cards=same,
        warnings=(*warnings, *_warning(card, same)),
    )
