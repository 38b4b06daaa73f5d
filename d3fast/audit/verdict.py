# SPDX-License-Identifier: Apache-2.0
"""The conclusion from all detectors, in plain words, with their measured hit and false-alarm rates.

The rates are those of ``python -m benchmarks.studies inspection``; ``make docs-check`` compares
them with its result file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from d3fast.audit.detectors.base import DetectorResult, short_name
from d3fast.audit.detectors.scores import MIN_CLASSES

# (flagged models, all models) of digits; their seeds chose no threshold. 10 % poisoned.
BACKDOORED: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "badnets": (5, 5),
        "blended": (5, 5),
        "sig": (0, 5),
        "wanet": (5, 5),
        "low-frequency": (5, 5),
        "input-aware": (3, 5),
        "ssba": (5, 5),
    }
)
# (C, H, W) and number of classes of these models
CALIBRATED = ((1, 8, 8), 10)
SPARSE = (2, 5)  # badnets, 2 % poisoned
CLEAN = (2, 20)
CLEAN_BY_HEAD = 2  # by the detector head


@dataclass(frozen=True)
class Verdict:
    """The conclusion from all detectors.

    Attributes:
        suspicious: at least one detector flags the model.
        targets: the classes that the flagging detectors name, the highest score first.
        text: the verdict in sentences, with its limits; ``basis`` comes first.
        basis: on which kind of models the rates were measured, and whether this is one.
    """

    suspicious: bool
    targets: tuple[int, ...]
    text: str
    basis: str = ""


def calibration(shape: Sequence[int], classes: int) -> str:
    """Return a sentence on whether the rates were measured on models of this kind.

    Args:
        shape: (C, H, W) of an image.
        classes: number of classes.

    Example:
        >>> calibration((3, 224, 224), 1000).partition(":")[0]
        'Not calibrated for this kind of model (images 3x224x224, 1,000 classes)'
    """
    kind = f"images {'x'.join(map(str, shape))}, {classes:,} classes"
    if (tuple(shape), classes) == CALIBRATED:
        return f"Calibrated on models of this kind ({kind}, small networks)."
    known = "x".join(map(str, CALIBRATED[0]))
    return (
        f"Not calibrated for this kind of model ({kind}): thresholds and rates were measured on "
        f"small networks for digits (images {known}, {CALIBRATED[1]} classes)."
    )


def verdict(
    results: Sequence[DetectorResult],
    classes: Sequence[str],
    *,
    basis: str = "",
    searched: int | None = None,
) -> Verdict:
    """Return the verdict: suspicious if any detector flags the model.

    Args:
        results: of the detectors.
        classes: names of the classes.
        basis: of ``calibration``.
        searched: number of classes that searches looked at; all if ``None``.

    Example:
        >>> quiet = DetectorResult("head", 1.0, 2.5, 1, "")
        >>> verdict([quiet], ("a", "b", "c")).text.partition(".")[0]
        'No detector flags this model'
    """
    flagged = sorted(
        (result for result in results if result.flagged),
        key=lambda result: result.value or 0.0,
        reverse=True,
    )
    targets = tuple(dict.fromkeys(r.target for r in flagged if r.target is not None))
    if flagged:
        names = [short_name(classes[target]) for target in targets]
        text = _suspicious(flagged, names)
    else:
        text = _not_flagged(len(classes))
    if searched is not None and searched < len(classes):
        text += (
            f" Triggers were searched for {searched:,} of {len(classes):,} classes, half of them "
            "drawn at random: a backdoor toward another class is seen by the head detector alone."
        )
    return Verdict(bool(flagged), targets, f"{basis} {text}".strip(), basis)


def _suspicious(flagged: Sequence[DetectorResult], names: Sequence[str]) -> str:
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    which = ", ".join(result.name for result in flagged)
    alarms, models = CLEAN
    text = (
        f"Possible backdoor with target class {shown} (flagged by {which}). This is no proof: "
        f"{alarms} of {models} clean models of digits were flagged too"
    )
    if [result.name for result in flagged] == ["head"]:
        text += (
            f", {CLEAN_BY_HEAD} of them by head, the only detector that flags this model; a class "
            "with more training images than the others raises its score as well"
        )
    return f"{text}. Repair the model and inspect it again."


def _not_flagged(classes: int) -> str:
    if classes < MIN_CLASSES:
        return (
            "No detector flags this model, and none could: detectors compare classes, and "
            f"{classes} are too few. This says nothing about the model."
        )
    found = sum(hits for hits, _ in BACKDOORED.values())
    models = sum(count for _, count in BACKDOORED.values())
    missed = ", ".join(
        f"{name} {count - hits} of {count}"
        for name, (hits, count) in BACKDOORED.items()
        if hits < count
    )
    few = SPARSE[1] - SPARSE[0]
    return (
        f"No detector flags this model. This does not rule out a backdoor: of {models} backdoored "
        f"models of digits {models - found} were not flagged ({missed}), and of {SPARSE[1]} with "
        f"fewer poisoned images {few} were not. An attacker who knows the detectors can avoid them."
    )
