# SPDX-License-Identifier: Apache-2.0
"""All signs of a model in plain words, with what they were worth on models whose truth is known.

The rates are those of ``python -m benchmarks.inspect_study``; a test compares them with its file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from d3fast.audit.detectors.base import MIN_CLASSES, Finding, short

# Models of digits on which a sign was raised, of so many; seeds that chose no threshold. The first
# were poisoned to 10 %.
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
CLEAN_BY_HEAD = 2  # by the sign head


@dataclass(frozen=True)
class Verdict:
    """What all signs together say.

    Attributes:
        suspicious: whether any sign is raised.
        targets: the classes they point to, the one that stands out furthest first.
        text: the same in plain words, and what it does not mean.
    """

    suspicious: bool
    targets: tuple[int, ...]
    text: str


def verdict(findings: Sequence[Finding], classes: Sequence[str]) -> Verdict:
    """The verdict: suspicious if any sign is raised.

    Args:
        findings: what the signs say.
        classes: names of the classes.

    Example:
        >>> quiet = Finding("head", (0.1, 0.2, 0.1), 1.0, 2.5, 1, "")
        >>> verdict([quiet], ("a", "b", "c")).text.partition(".")[0]
        'No sign of a backdoor found'
    """
    raised = sorted(
        (found for found in findings if found.raised), key=lambda f: f.value or 0.0, reverse=True
    )
    targets = tuple(dict.fromkeys(f.target for f in raised if f.target is not None))
    if raised:
        return Verdict(True, targets, _suspicious(raised, [short(classes[t]) for t in targets]))
    return Verdict(False, (), _quiet(len(classes)))


def _suspicious(raised: Sequence[Finding], names: Sequence[str]) -> str:
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    which = ", ".join(found.name for found in raised)
    alarms, models = CLEAN
    said = (
        f"Signs of a backdoor toward class {shown} ({which}). That is no proof: "
        f"{alarms} of {models} clean models showed one too"
    )
    if [found.name for found in raised] == ["head"]:
        said += (
            f", {CLEAN_BY_HEAD} of them by head, the only one raised here, which more training "
            "images of one class than of the others move as well"
        )
    return f"{said}. Repair it and look again."


def _quiet(classes: int) -> str:
    if classes < MIN_CLASSES:
        return (
            f"No sign of a backdoor found, and none could be: signs compare classes, and with "
            f"{classes} none can stand out. This says nothing about the model."
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
        "No sign of a backdoor found. That does not mean that there is none: of "
        f"{models} models of digits that were backdoored on purpose, {models - found} showed no "
        f"sign ({missed}), and so did {few} of {SPARSE[1]} of which fewer images were poisoned. "
        "An attacker who knows the signs can avoid them."
    )
