# SPDX-License-Identifier: Apache-2.0
"""The conclusion from all detectors, in plain words.

With a calibration it is a p-value: how many clean models of this architecture look like this one.
Without one it quotes the rates of ``python -m benchmarks.studies inspection``; ``make docs-check``
compares them with its result file.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import msgspec

from d3fast.audit.calibration import Calibrated
from d3fast.audit.detectors.base import DetectorResult, short_name
from d3fast.audit.detectors.scores import MIN_CLASSES
from d3fast.results.format import joined, percent, significant
from d3fast.results.schema.audit import Role, VerdictRow

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
SPARSE = (2, 5)  # badnets, 2 % poisoned
CLEAN = (2, 20)
CLEAN_BY_HEAD = 2  # by the detector head
_MOST = 0.5
_ROUNDING = 1e-9  # 1 / 0.02 may be a little below 50


@dataclass(frozen=True)
class Verdict:
    """The conclusion from all detectors.

    Attributes:
        suspicious: at least one detector flags the model.
        targets: the classes that the flagging detectors name, the least likely one first.
        text: the verdict in sentences, with its limits; ``basis`` comes first.
        basis: whether the detectors are calibrated for this kind of model.
        calibrated: the p-value and where it is from; ``None`` without a calibration.
    """

    suspicious: bool
    targets: tuple[int, ...]
    text: str
    basis: str = ""
    calibrated: Calibrated | None = None

    def row(self, role: Role) -> VerdictRow:
        """Return the row of a results file."""
        row = VerdictRow(
            role=role,
            suspicious=self.suspicious,
            targets=self.targets,
            text=self.text,
            basis=self.basis or None,
        )
        found = self.calibrated
        if found is None:
            return row
        return msgspec.structs.replace(
            row,
            p_value=found.p_value,
            rate=found.rate,
            calibration=found.sha256,
            clean_models=found.models,
        )


def one_in(rate: float) -> str:
    """Return a share of clean models in words, never a smaller one.

    Example:
        >>> one_in(0.02), one_in(0.03)
        ('1 clean model in 50', '1 clean model in 33')
    """
    return f"1 clean model in {math.floor(1 / rate + _ROUNDING):,}"


def models_like_this(p_value: float) -> str:
    """Return how many clean models look like a model with this p-value.

    Example:
        >>> models_like_this(0.02), models_like_this(0.7)
        ('1 clean model in 50 looks like this', 'most clean models look like this')
    """
    most = p_value > _MOST
    return "most clean models look like this" if most else f"{one_in(p_value)} looks like this"


def basis_of(found: Calibrated) -> str:
    """Return a sentence on the clean models that a model was compared with."""
    finest = found.rate <= 1 / (found.models + 1)
    resolved = f", the lowest rate that {found.models:,} models resolve" if finest else ""
    unlike = ""
    if found.accuracies is not None:
        own, mean = (percent(value, 1) for value in found.accuracies)
        unlike = (
            f" Its accuracy, {own} %, is not that of these clean models, {mean} % in the mean: if "
            "it was trained on more or other data, or for longer, the p-value does not hold."
        )
    return (
        f"Calibrated on {found.models:,} clean models of this architecture ({found.model}, "
        f"{found.data}): all detectors together flag at most {one_in(found.rate)}{resolved}."
        f"{unlike}"
    )


def not_calibrated(shape: Sequence[int], classes: int, repaired: bool = False) -> str:
    """Return a sentence on the models that thresholds and rates were measured on.

    Args:
        shape: (C, H, W) of an image.
        classes: number of classes.
        repaired: the model is a repaired copy, which a calibration knows nothing of.

    Example:
        >>> not_calibrated((3, 224, 224), 1000).partition(":")[0]
        'Not calibrated for this kind of model (images 3x224x224, 1,000 classes)'
    """
    if repaired:
        return (
            "Not calibrated for repaired models: thresholds and rates were measured on small "
            "networks for digits."
        )
    kind = f"images {'x'.join(map(str, shape))}, {classes:,} classes"
    return (
        f"Not calibrated for this kind of model ({kind}): thresholds and rates were measured on "
        "small networks for digits. d3fast calibrate measures them on models like this one."
    )


def verdict(
    results: Sequence[DetectorResult],
    classes: Sequence[str],
    *,
    basis: str = "",
    searched: int | None = None,
    calibrated: Calibrated | None = None,
) -> Verdict:
    """Return the verdict: suspicious if any detector flags the model.

    Args:
        results: of the detectors.
        classes: names of the classes.
        basis: of ``not_calibrated``; not used with a calibration.
        searched: number of classes that searches looked at; all if ``None``.
        calibrated: what a calibration says of these results.

    Example:
        >>> quiet = DetectorResult("head", 1.0, 2.5, 1, "")
        >>> verdict([quiet], ("a", "b", "c")).text.partition(".")[0]
        'No detector flags this model'
    """
    flagged = flagged_first(results)
    targets = tuple(dict.fromkeys(r.target for r in flagged if r.target is not None))
    names = [short_name(classes[target]) for target in targets]
    if calibrated is not None:
        basis, text = basis_of(calibrated), calibrated_text(flagged, names, calibrated)
    elif flagged:
        text = _suspicious(flagged, names)
    else:
        text = _not_flagged(len(classes))
    if searched is not None and searched < len(classes):
        text += (
            f" Triggers were searched for {searched:,} of {len(classes):,} classes, half of them "
            "drawn at random: a backdoor toward another class is seen by the head detector alone."
        )
    return Verdict(bool(flagged), targets, f"{basis} {text}".strip(), basis, calibrated)


def flagged_first(results: Sequence[DetectorResult]) -> list[DetectorResult]:
    """Return the results that flag the model, the least likely one of a clean model first."""
    return sorted(
        (result for result in results if result.flagged),
        key=lambda result: (result.adjusted_p_value or 0.0, -(result.value or 0.0)),
    )


def calibrated_text(
    flagged: Sequence[DetectorResult], names: Sequence[str], found: Calibrated
) -> str:
    """Return the verdict in sentences where there is a p-value.

    Args:
        flagged: results that flag the model.
        names: of the classes that they point to.
        found: what the calibration says.
    """
    like = f"{models_like_this(found.p_value)} (p = {significant(found.p_value, 2)})"
    uncounted = ""
    if found.uncounted:
        verb = "does" if len(found.uncounted) == 1 else "do"
        uncounted = f" {joined(found.uncounted)} {verb} not count: the calibration has no score."
    if flagged:
        said = f"{_named(flagged, names)}: {like}. This is no proof."
        return f"{said}{_cause(flagged)}{uncounted} {_NEXT}"
    missed = (
        f"of {found.backdoored} backdoored models of the calibration ({', '.join(found.attacks)}) "
        f"{found.backdoored - found.found} were not flagged"
        if found.backdoored
        else "the calibration has no backdoored models, so the share that is missed is not known"
    )
    return (
        f"No detector flags this model: {like}. This does not rule out a backdoor: {missed}. "
        f"An attacker who knows the detectors can avoid them.{uncounted}"
    )


_NEXT = "Repair the model and inspect it again."


def _named(flagged: Sequence[DetectorResult], names: Sequence[str]) -> str:
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    which = ", ".join(result.name for result in flagged)
    return f"Possible backdoor with target class {shown} (flagged by {which})"


def _cause(flagged: Sequence[DetectorResult]) -> str:
    """Return another possible cause where the head alone flags the model."""
    if [result.name for result in flagged] != ["head"]:
        return ""
    return " A class with more training images than the others raises the score of head as well."


def _suspicious(flagged: Sequence[DetectorResult], names: Sequence[str]) -> str:
    alarms, models = CLEAN
    text = (
        f"{_named(flagged, names)}. This is no proof: {alarms} of {models} clean models of digits "
        "were flagged too"
    )
    if [result.name for result in flagged] == ["head"]:
        text += (
            f", {CLEAN_BY_HEAD} of them by head, the only detector that flags this model; a class "
            "with more training images than the others raises its score as well"
        )
    return f"{text}. {_NEXT}"


def _not_flagged(classes: int) -> str:
    if classes < MIN_CLASSES:
        return (
            "No detector flags this model, and none could: without a calibration detectors compare "
            f"the classes of the model, and {classes} are too few. This says nothing about it."
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
