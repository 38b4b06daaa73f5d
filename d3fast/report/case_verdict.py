# SPDX-License-Identifier: Apache-2.0
"""The verdict of a case in plain words, for somebody who has to decide whether a model ships.

Four questions, one line each: was a backdoor found, was the model repaired, did it keep its
accuracy, what is left. A headline sums them up, one sentence says what to do next. Nothing here
says "safe": signs that are not raised prove nothing.
"""

from dataclasses import dataclass

from d3fast.findings import Findings
from d3fast.report.case import Card, CaseDocuments
from d3fast.report.case_words import interval, joined, percent, points

_BLIND = "Signs compare classes, and with so few none can stand out: nothing can be told."
GOOD, BAD, OPEN = "reached", "missed", "unmeasured"  # names of styles


@dataclass(frozen=True)
class Point:
    """One line of the verdict.

    Attributes:
        word: the answer in one or two words.
        state: ``GOOD``, ``BAD`` or ``OPEN``.
        text: the answer in a sentence.
        found: what it rests on.
    """

    word: str
    state: str
    text: str
    found: str = ""


@dataclass(frozen=True)
class Verdict:
    """All of it.

    Attributes:
        headline: above the page.
        points: the four lines.
        advice: what to do next.
    """

    headline: str
    points: tuple[Point, ...]
    advice: str


def _toward(found: Findings) -> str:
    """`` toward class “3”``, or nothing where no class is named."""
    names = [f"“{found.name(target)}”" for target in found.targets[:5]]
    if not names:
        return ""
    more = len(found.targets) - len(names)
    listed = joined([*names, *([f"{more} more"] if more > 0 else [])])
    return f" toward {'class' if len(found.targets) == 1 else 'classes'} {listed}"


def _evidence(found: Findings) -> str:
    """How many signs are raised, in words."""
    parts = []
    if found.inversions:
        count = len(found.outliers)
        parts.append(
            f"{count} of {len(found.inversions)} classes {'has' if count == 1 else 'have'} a "
            "suspiciously small trigger"
        )
    if found.signs:
        parts.append(f"{len(found.raised)} of {len(found.signs)} other signs raised")
    return "; ".join(parts).capitalize() + ("." if parts else "")


def _backdoor(before: Findings | None) -> Point:
    if before is None or before.suspicious is None:
        return Point("not looked for", OPEN, "Nobody has looked for a backdoor in this model.")
    if before.suspicious:
        text = f"The model bears signs of a backdoor{_toward(before)}."
        return Point("found", BAD, text, _evidence(before))
    if before.blind:
        return Point("cannot tell", OPEN, _BLIND)
    text = "No sign of a backdoor was found. That does not prove that there is none."
    return Point("no sign", OPEN, text, _evidence(before))


def _repaired(before: Findings | None, after: Findings | None) -> Point:
    if after is None:
        return Point("no repair", OPEN, "The model has not been repaired.")
    if after.suspicious is None:
        text = "The model was repaired, but nobody has looked for signs since."
        return Point("not checked", OPEN, text)
    if after.blind:
        return Point("cannot tell", OPEN, f"The model was repaired. {_BLIND}")
    was = before is not None and before.suspicious
    if after.suspicious:
        if not was:
            text = f"The repaired model bears signs of a backdoor{_toward(after)}"
            text += (
                " that the suspect did not bear." if before and before.suspicious is False else "."
            )
        elif before is not None and set(before.targets) & set(after.targets):
            text = f"The repair failed: the signs{_toward(after)} are still there."
        else:
            text = f"After the repair the model bears signs of a backdoor{_toward(after)}, "
            text += "not of the one before."
        return Point("not repaired", BAD, text, _evidence(after))
    if was:
        text = "The model was repaired: the signs of the backdoor are gone."
        return Point("repaired", GOOD, text, _evidence(after))
    text = "The model was repaired as a precaution; no sign before, none after."
    if before is None or before.suspicious is None:
        text = "The model was repaired; the repaired model bears no sign of a backdoor."
    return Point("repaired", GOOD, text, _evidence(after))


def _accuracy(before: Findings | None, card: Card | None) -> Point:
    if card is None:
        if before is None:
            return Point("not measured", OPEN, "Its accuracy has not been measured.")
        m = before.metrics
        text = f"It answers {percent(m.acc)} of {m.images} clean samples correctly."
        return Point("measured", OPEN, text, f"95 % interval {interval(*m.acc_interval)}.")
    drop, low, high = card.repair.drop
    held_out, allowed = card.repair.samples[1], card.repair.allowed
    measured = f"{points(drop)} lost" if drop >= 0 else f"{points(-drop)} gained"
    text = f"{measured}, {points(allowed)} were allowed."
    found = f"95 % interval of the loss {points(low, '')} to {points(high)}, {held_out} samples."
    if not card.repair.kept:
        return Point("lost", BAD, f"Accuracy is lower than agreed: {text}", found)
    if high > allowed:
        found += " So few samples do not rule out a loss above what was allowed."
    return Point("kept", GOOD, f"Accuracy is kept: {text}", found)


def _left(before: Findings | None, after: Findings | None) -> Point:
    now = after or before
    if now is None or now.suspicious is None or now.blind:
        return Point("unknown", OPEN, "What the model carries is not known.")
    names = [f"the small trigger of class “{found.name}”" for found in now.outliers[:5]]
    names += [f"the sign “{sign.name}”" for sign in now.raised]
    if now.suspicious:
        text = "The backdoor is still in the model." if after is None else "Signs are left."
        return Point("left", BAD, text, f"Raised: {joined(names)}." if names else "")
    if names:
        text = "Not enough for a verdict, but something still stands out."
        return Point("a little", OPEN, text, f"Raised: {joined(names)}.")
    text = "Nothing that the signs can see; what they cannot see is under “What was not checked”."
    return Point("nothing seen", GOOD if after is not None else OPEN, text)


def _headline(before: Findings | None, after: Findings | None, card: Card | None) -> str:
    was = None if before is None else before.suspicious
    if before is not None and before.blind:
        done = "" if after is None else "; it was repaired"
        return f"Whether the model has a backdoor cannot be told{done}"
    where = "" if before is None or not was else _toward(before)
    if after is None or card is None:
        return {
            None: "Nobody has looked for a backdoor yet",
            True: f"Signs of a backdoor{where}",
            False: "No sign of a backdoor found",
        }[was]
    start = {
        None: "The model was repaired",
        True: f"Backdoor{where} found",
        False: "No sign of a backdoor found",
    }[was]
    if after.suspicious is None:
        return f"{start}; nobody has checked the repaired model"
    if after.suspicious:
        return (
            f"{start}; the repaired model still bears signs"
            if was
            else (f"{start}; the repaired model bears signs")
        )
    price = "accuracy kept" if card.repair.kept else "more accuracy lost than allowed"
    return f"{start} and repaired, {price}" if was else f"{start}; repaired, {price}"


def _advice(case: CaseDocuments) -> str:
    before, after, card = case.before, case.after, case.card
    if card is None or after is None:
        if before is None or before.suspicious is None:
            return "Run d3fast inspect before anything is decided."
        if before.blind:
            return "Decide by where the model came from; d3fast cannot tell."
        if before.suspicious:
            return "Do not ship this model. Repair it with d3fast detox, then make this page again."
        return (
            "Nothing found here speaks against shipping. If you do not trust where the model came "
            "from, a repair as a precaution costs little: d3fast detox."
        )
    if case.output_is_the_cards is False:
        return f"Do not ship {card.repair.output} from this folder: run d3fast detox again."
    if after.suspicious is None:
        return f"Run d3fast inspect on {card.repair.output} before it ships."
    if after.suspicious:
        return (
            "Do not ship either model. Repair again with more clean samples or a stronger push "
            "(d3fast pilot compares settings), or train the model anew from data that you trust."
        )
    if not card.repair.kept:
        return (
            f"Do not ship the suspect. {card.repair.output} bears no sign of a backdoor but is "
            "less accurate than agreed: decide whether you can live with the loss, allow more, or "
            "repair again with more clean samples."
        )
    return (
        f"If one of the two models ships, ship {card.repair.output}, after your own tests on data "
        "that were not used here. Keep card.json: d3fast monitor compares a later look with it."
    )


def verdict(case: CaseDocuments) -> Verdict:
    """What the documents of a case say, in words.

    Args:
        case: what ``read_case`` gave.
    """
    before, after, card = case.before, case.after, case.card
    return Verdict(
        headline=_headline(before, after, card),
        points=(
            _backdoor(before),
            _repaired(before, after),
            _accuracy(before, card),
            _left(before, after),
        ),
        advice=_advice(case),
    )
