# SPDX-License-Identifier: Apache-2.0
"""All signs of a model in plain words, with what they were worth on models whose truth is known.

The rates are those of ``python -m benchmarks.inspect_study``; a test compares them with its file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from d3fast.inspection.signs import MIN_CLASSES, Finding, short

# Models on which a sign was raised, of so many: on digits, with the seeds that chose no threshold.
BACKDOORED: Mapping[str, tuple[int, int]] = MappingProxyType({})
CLEAN = (0, 1)
# Clean models one class of which had twice as many training images as the others.
UNEVEN = (0, 1)


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
        alarms, models = UNEVEN
        said += (
            f", and {alarms} of {models} that had more training images of one class, which the "
            "sign head, the only one raised, cannot tell from a backdoor"
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
    return (
        "No sign of a backdoor found. That does not mean that there is none: of "
        f"{models} backdoored models {models - found} showed no sign"
        f"{f' ({missed})' if missed else ''}, and an attacker who knows the signs can avoid them."
    )
