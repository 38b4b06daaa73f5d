# SPDX-License-Identifier: Apache-2.0
"""Conclusions from the trials: Pareto front, sensitivity per parameter, recommended setting."""

from collections.abc import Mapping, Sequence
from statistics import mean, median
from typing import Any

from d3fast.audit.pilot.halving import ranks, survivors
from d3fast.audit.pilot.options import PARAMETERS
from d3fast.results.format import fixed, percent, shortest
from d3fast.results.schema.pilot import RecommendationRow, SensitivityRow
from d3fast.training.paired import PairedAccuracy

Row = Mapping[str, Any]


def attack_lift(row: Row) -> float:
    """Return the lift of the user's trigger if there is one, else of the inverted triggers.

    A negative lift counts as 0: a model that answers the class less often with the trigger than
    without has no less of the backdoor than one with a lift of 0, but more plain errors.

    Example:
        >>> attack_lift({"lift": None, "inversion_lift": 0.25}), attack_lift({"lift": -0.5})
        (0.25, 0.0)
    """
    own = row["lift"]
    return max(0.0, float(row["inversion_lift"] if own is None else own))


def with_front(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the trials of one rung with a mark on those of the Pareto front of ACC and lift.

    Example:
        >>> rows = [{"acc": 0.9, "lift": 0.1}, {"acc": 0.8, "lift": 0.2}]
        >>> [row["pareto"] for row in with_front(rows)]
        [True, False]
    """
    rank = ranks([(row["acc"], attack_lift(row)) for row in rows])
    return [{**row, "pareto": not own} for row, own in zip(rows, rank, strict=True)]


def going_on(rows: Sequence[Row], count: int) -> list[int]:
    """Return the numbers of the trials that continue in the next rung.

    Held-out accuracy and the inverted triggers decide; the user's own trigger does not.
    """
    points = [(float(row["acc"]), attack_lift({**row, "lift": None})) for row in rows]
    return [rows[index]["trial"] for index in survivors(points, count)]


def sensitivity(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return, for each parameter, the means of ACC and inversion-based ASR over its values.

    Args:
        rows: trials of the first rung, which has all settings.

    Returns:
        One row per parameter; the ranges are largest minus smallest mean, as fractions.
    """
    found = []
    for name in PARAMETERS:
        values = sorted({row[name] for row in rows})
        acc, asr = (
            tuple(mean(row[key] for row in rows if row[name] == value) for value in values)
            for key in ("acc", "inversion_asr")
        )
        found.append(
            SensitivityRow(
                parameter=name,
                values=tuple(values),
                acc=acc,
                inversion_asr=asr,
                acc_range=max(acc) - min(acc),
                asr_range=max(asr) - min(asr),
            ).to_row()
        )
    return found


def lost(suspect: Row, row: Row) -> float:
    """Return the loss of held-out accuracy against the suspect, in points."""
    return 100 * (suspect["correct"] - row["correct"]) / suspect["samples"]


def paired(suspect: Row, row: Row) -> PairedAccuracy:
    """Return suspect and repaired model on the same held-out samples."""
    return PairedAccuracy(suspect["correct"], row["correct"], row["both"], suspect["samples"])


def recommendation(
    suspect: Row, rows: Sequence[Row], max_acc_drop: float, full_epochs: int
) -> dict[str, Any]:
    """Return the row of the recommended setting.

    Among the trials that lose at most ``max_acc_drop`` points it is the one with the lowest lift,
    then the highest ACC, then the greatest distance. If none is within the limit, it is the one
    that loses least.

    Args:
        suspect: its row.
        rows: trials of the last complete rung.
        max_acc_drop: points.
        full_epochs: epochs of a full repair, for its estimated seconds.
    """
    within = [row for row in rows if lost(suspect, row) <= max_acc_drop + 1e-9]

    def order(row: Row) -> tuple[float, ...]:
        rates = (attack_lift(row), -row["acc"])
        return (*(rates if within else rates[::-1]), -row["distance"], row["trial"])

    best = min(within or rows, key=order)
    each = median(row["seconds"] / row["epochs"] for row in rows)
    low, high = paired(suspect, best).interval
    return RecommendationRow(
        trial=best["trial"],
        rung=best["rung"],
        **{name: best[name] for name in PARAMETERS},
        within=bool(within),
        acc_drop=lost(suspect, best),
        acc_drop_low=low,
        acc_drop_high=high,
        epochs=full_epochs,
        seconds_per_epoch=each,
        seconds=each * full_epochs,
        why=_why(suspect, best, len(rows), len(within), max_acc_drop),
    ).to_row()


def _why(suspect: Row, best: Row, count: int, within: int, limit: float) -> str:
    kind = "inverted triggers"
    if best["asr"] is not None:
        kind = "the trigger that was given"
    drop, one = lost(suspect, best), 100 / suspect["samples"]
    low, high = paired(suspect, best).interval
    span = f"paired 95 % interval of the loss {fixed(low)} to {fixed(high)}"
    change = f"loses {fixed(drop)} points of accuracy ({span})"
    if drop < 0:
        change = f"gains {fixed(-drop)} points ({span})"
    rate = f"{percent(attack_lift(best))} points"
    most = f"{shortest(round(limit, 1))} point{'s' * (limit != 1)}"
    allowed = f"within {most} after {best['epochs']} epochs"
    if within:
        verb = "stays" if within == 1 else "stay"
        text = f"{within} of {count} settings {verb} {allowed}; of these it has the lowest lift "
        text += f"of {kind}, {rate}, and {change}"
    else:
        text = f"none of {count} settings stays {allowed}; this one loses least, {fixed(drop)} "
        text += f"({span}), and the lift of {kind} is {rate}"
    coarse = ": the limit allows none to be lost" if one > limit else ""
    return f"{text} (one of {suspect['samples']} held-out samples is {fixed(one)} points{coarse})"
