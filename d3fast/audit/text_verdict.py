# SPDX-License-Identifier: Apache-2.0
"""The conclusion from all text detectors, in plain words, with what is known of their rates."""

from collections.abc import Sequence

from d3fast.audit.detectors.base import DetectorResult, short_name
from d3fast.audit.verdict import Verdict

# What the thresholds were chosen on; docs/text.md has the table.
_RATES = (
    "The thresholds are not calibrated for this kind of model: they were chosen on four models of "
    "film reviews, all MiniLM, of which they flag the two with a backdoor."
)


def text_verdict(results: Sequence[DetectorResult], classes: Sequence[str]) -> Verdict:
    """Return the verdict: suspicious if any detector flags the model.

    Args:
        results: of the detectors.
        classes: names of the classes.

    Example:
        >>> quiet = DetectorResult("token", 0.7, 1.15, 1, "")
        >>> text_verdict([quiet], ("no", "yes")).text.partition(".")[0]
        'No detector flags this model'
    """
    flagged = sorted(
        (result for result in results if result.flagged),
        key=lambda result: result.value or 0.0,
        reverse=True,
    )
    targets = tuple(dict.fromkeys(r.target for r in flagged if r.target is not None))
    if not flagged:
        return Verdict(
            False,
            (),
            f"No detector flags this model. This does not rule out a backdoor. {_RATES}",
        )
    names = [short_name(classes[target]) for target in targets]
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    which = ", ".join(result.name for result in flagged)
    return Verdict(
        True,
        targets,
        f"Possible backdoor with target class {shown} (flagged by {which}). This is no proof. "
        f"{_RATES} Repair the model and inspect it again.",
    )
