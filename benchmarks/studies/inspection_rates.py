# SPDX-License-Identifier: Apache-2.0
"""What the study ``inspection`` counts: models that are flagged, and areas under ROC curves.

flagged, choices, chosen_rate, rates   at the thresholds of ``d3fast inspect``
areas                                  at every threshold, against the clean models of a set
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.studies.roc import auc, auc_interval, standardized, threshold_at
from d3fast.attacks import ATTACKS
from d3fast.audit.detectors.registry import DEFAULT_DETECTORS
from d3fast.audit.detectors.scores import threshold
from d3fast.results.jobs import Row
from d3fast.training.intervals import wilson

RATES = (0.005, 0.01, 0.025, 0.05)
ALARMS = (0.01, 0.05)  # false-alarm rates at which detections are counted
CLEAN, EVERY, ALL, WITH_WAVE = "clean", "every attack", "all", "all and wave"
COMBINED: Mapping[str, tuple[str, ...]] = {
    ALL: DEFAULT_DETECTORS,
    WITH_WAVE: (*DEFAULT_DETECTORS, "wave"),
}
# Further models of digits: they count in the areas. The verdict quotes the rates of the first set.
MORE = "digits-more"


def family(row: Row) -> str:
    """Return the set that a model counts in for the areas."""
    name: str = row["set"]
    return "digits" if name == MORE else name


def flagged(row: Row, rate: float, signs: Sequence[str] | None = None) -> list[tuple[str, int]]:
    """Return (detector, target class) of every detector that flags a model at a rate."""
    above = threshold(10, rate)
    return [
        (name, found["target"])
        for name, found in row["signs"].items()
        if found["value"] > above and (signs is None or name in signs)
    ]


def choices(rows: Sequence[Row]) -> list[Row]:
    """Return the detections and false alarms at each of ``RATES`` on some models."""
    table = []
    for rate in RATES:
        row: Row = {
            "kind": "choice",
            "set": rows[0]["set"],
            "rate": rate,
            "threshold": threshold(10, rate),
        }
        for kind, clean in (("backdoored", False), ("clean", True)):
            alarms = [bool(flagged(r, rate)) for r in rows if (r["attack"] == CLEAN) == clean]
            row |= {f"{kind}_found": sum(alarms), f"{kind}_models": len(alarms)}
        table.append(row)
    return table


def chosen_rate(table: Sequence[Row]) -> float:
    """Return the rate with the largest detection minus false-alarm share; of equals the lowest."""

    def gain(row: Row) -> float:
        found, alarms = (row[f"{k}_found"] / row[f"{k}_models"] for k in ("backdoored", "clean"))
        return found - alarms

    return max(sorted(table, key=lambda row: row["rate"]), key=gain)["rate"]


def rates(rows: Sequence[Row], rate: float) -> Iterator[Row]:
    """Yield the detections per set and attack, of every detector alone and of all together.

    ``EVERY`` combines all attacks at the usual poison ratio. A backdoored model is ``found`` if a
    detector flags it, and ``named`` if one of them points to its target. A detector that did not
    look at every model is left out.
    """
    signs = [sign for sign in rows[0]["signs"] if all(sign in row["signs"] for row in rows)]
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["attack"] in ATTACKS:
            groups.setdefault((row["set"], EVERY), []).append(row)
        groups.setdefault((row["set"], row["attack"]), []).append(row)
    for (name, attack), own in groups.items():
        for sign in (ALL, *signs):
            detectors = signs if sign == ALL else (sign,)
            alarms = [flagged(row, rate, detectors) for row in own]
            found = sum(map(bool, alarms))
            named = sum(
                any(target == row["target"] for _, target in alarm)
                for alarm, row in zip(alarms, own, strict=True)
            )
            low, high = wilson(found, len(own))
            yield {
                "kind": "rate",
                "set": name,
                "attack": attack,
                "sign": sign,
                "found": found,
                "named": None if own[0]["asr"] is None else named,
                "models": len(own),
                "low": low,
                "high": high,
            }


@dataclass(frozen=True)
class Scored:
    """The score that one detector, or all together, gives a model, and the class it names."""

    score: float
    target: int


def scored(rows: Sequence[Row], sign: str) -> dict[int, Scored]:
    """Return the scores of the models that a detector looked at, by their position in ``rows``.

    Args:
        rows: models of one set, clean ones among them.
        sign: name of a detector; one of ``COMBINED`` stands for the largest standardized score of
            its detectors, which names the class of that detector.
    """
    detectors = COMBINED.get(sign, (sign,))
    looked = [at for at, row in enumerate(rows) if all(name in row["signs"] for name in detectors)]
    signs = [rows[at]["signs"] for at in looked]
    if sign not in COMBINED:
        return {
            at: Scored(own[sign]["value"], own[sign]["target"])
            for at, own in zip(looked, signs, strict=True)
        }
    table = np.array([[own[name]["value"] for name in detectors] for own in signs])
    clean = np.array([rows[at]["attack"] == CLEAN for at in looked])
    standard = standardized(table, table[clean])
    named = [detectors[at] for at in standard.argmax(axis=1)]
    return {
        at: Scored(float(standard[place].max()), signs[place][named[place]]["target"])
        for place, at in enumerate(looked)
    }


def areas(rows: Sequence[Row], rate: float) -> Iterator[Row]:
    """Yield the area under the ROC curve per family, attack and detector, and detections.

    The clean models of the family are the negatives; their own row has no area. ``found`` counts
    the models above the lowest score that at most a share of ``ALARMS`` of them exceed, ``named``
    the models whose target has the largest statistic, whatever the score, and ``flagged`` those
    above the default threshold at a rate.
    """
    for name in dict.fromkeys(map(family, rows)):
        own = [row for row in rows if family(row) == name]
        signs = list(dict.fromkeys(sign for row in own for sign in row["signs"]))
        for sign in (ALL, *([WITH_WAVE] if "wave" in signs else []), *signs):
            scores = scored(own, sign)
            clean = [one.score for at, one in scores.items() if own[at]["attack"] == CLEAN]
            for attack, members in _groups(own, scores).items():
                detectors = COMBINED.get(sign, (sign,))
                if clean:
                    yield {
                        "kind": "auc",
                        "set": name,
                        "attack": attack,
                        "sign": sign,
                        **_area(attack, [scores[at].score for at in members], clean),
                        "named": sum(scores[at].target == own[at]["target"] for at in members),
                        "flagged": sum(bool(flagged(own[at], rate, detectors)) for at in members),
                    }


def _groups(rows: Sequence[Row], scores: Mapping[int, Scored]) -> dict[str, list[int]]:
    """Return the positions of the models by attack, and of every attack together."""
    groups: dict[str, list[int]] = {}
    for at in scores:
        attack = rows[at]["attack"]
        if attack in ATTACKS:
            groups.setdefault(EVERY, []).append(at)
        groups.setdefault(attack, []).append(at)
    return groups


def _area(attack: str, own: Sequence[float], clean: Sequence[float]) -> Row:
    known = attack != CLEAN
    area = auc(own, clean) if known else None
    low, high = (None, None) if area is None else auc_interval(area, len(own), len(clean))
    found = [sum(score > threshold_at(clean, rate) for score in own) for rate in ALARMS]
    return {
        "models": len(own),
        "clean": len(clean),
        "auc": area,
        "low": low,
        "high": high,
        "alarms": list(ALARMS),
        "found": found,
    }
