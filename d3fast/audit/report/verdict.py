# SPDX-License-Identifier: Apache-2.0
"""The verdict of a case in plain words, for somebody who has to decide whether a model ships.

Four questions, one line each: was a backdoor found, was the model repaired, did it keep its
accuracy, what is left. A headline sums them up, one sentence says what to do next. Nothing here
says "safe": signs that are not raised prove nothing.
"""

from dataclasses import dataclass

from d3fast.audit.findings import Findings
from d3fast.audit.report.folder import Card, CaseDocuments
from d3fast.results.format import fixed, interval, joined, percent, points
from d3fast.training.metrics import MAX_FLOOR

_BLIND = "Signs compare classes, and with so few none can stand out: nothing can be told."
GOOD, BAD, OPEN = "reached", "missed", "unmeasured"  # names of styles


@dataclass(frozen=True)
class Point:
    """One line of the verdict.

    Attributes:
        question: what it answers.
        word: the answer in one or two words.
        state: ``GOOD``, ``BAD`` or ``OPEN``.
        text: the answer in a sentence.
        found: what it rests on.
    """

    question: str
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


def _works(found: Findings | None) -> bool:
    """Whether a known trigger works, more often than on models that were never poisoned."""
    return found is not None and 100 * (found.metrics.asr or 0.0) > MAX_FLOOR


def _carries(found: Findings | None) -> bool | None:
    """Whether a model bears signs of a backdoor, a working trigger among them."""
    if found is None or _works(found):
        return None if found is None else True
    return None if found.blind else found.suspicious


def _toward(found: Findings) -> str:
    """`` toward class “3”``, or nothing where no class is named."""
    names = [f"“{found.name(target)}”" for target in found.targets[:5]]
    if not names:
        return ""
    more = len(found.targets) - len(names)
    listed = joined([*names, *([f"{more} more"] if more > 0 else [])])
    return f" toward {'class' if len(found.targets) == 1 else 'classes'} {listed}"


def _briefly(found: Findings) -> str:
    """The same for a headline: classes whose names would fill it are counted."""
    toward = _toward(found)
    return toward if len(toward) < 80 else f" toward {len(found.targets)} classes"


def _evidence(found: Findings) -> str:
    """How many signs are raised, and how often a known trigger works, in words."""
    parts = []
    if found.signs:
        parts.append(f"{len(found.raised)} of {len(found.signs)} signs raised.")
    if found.inversions:
        count = len(found.outliers)
        verb = "has" if count == 1 else "have"
        parts.append(
            f"{count} of {len(found.inversions)} classes {verb} an unusually small trigger."
        )
    m = found.metrics
    if m.asr is not None and m.asr_interval is not None:
        parts.append(
            f"The known trigger works on {percent(m.asr, unit='%')} of {m.triggered} samples "
            f"(95 % interval {interval(*m.asr_interval)})."
        )
    return " ".join(parts)


def _backdoor(before: Findings | None) -> Point:
    question, carries = "Backdoor?", _carries(before)
    if before is None or (carries is None and not before.blind):
        text = "Nobody has looked for a backdoor in this model."
        return Point(question, "not looked for", OPEN, text)
    if carries is None:
        return Point(question, "cannot tell", OPEN, _BLIND)
    if carries:
        text = f"The model bears signs of a backdoor{_toward(before)}."
        if _works(before):
            text = f"The model has a backdoor{_toward(before)}: a known trigger works."
        return Point(question, "found" if _works(before) else "signs", BAD, text, _evidence(before))
    text = "No sign of a backdoor was found. That does not prove that there is none."
    return Point(question, "no sign", OPEN, text, _evidence(before))


def _repaired(before: Findings | None, after: Findings | None) -> Point:
    question, carried, carries = "Repaired?", _carries(before), _carries(after)
    if after is None:
        return Point(question, "no repair", OPEN, "The model has not been repaired.")
    if carries is None:
        text = "The model was repaired, but nobody has looked for signs since."
        if after.blind:
            text = f"The model was repaired. {_BLIND}"
        return Point(question, "not checked", OPEN, text)
    if carries:
        word = "not certain" if _moved(before, after) else "no"
        return Point(question, word, BAD, _failure(before, after), _evidence(after))
    text = {
        None: "The model was repaired; the repaired model bears no sign of a backdoor.",
        True: "The model was repaired: the signs of the backdoor are gone.",
        False: "The model was repaired as a precaution: no sign before, none after.",
    }[carried]
    return Point(question, "yes", GOOD, text, _evidence(after))


def _moved(before: Findings | None, after: Findings) -> bool:
    """Whether the signs after a repair point to other classes than those before."""
    if before is None or _works(after) or not before.targets or not after.targets:
        return False
    return not set(before.targets) & set(after.targets)


def _failure(before: Findings | None, after: Findings) -> str:
    """In what way a repair failed."""
    toward = _toward(after)
    if before is not None and _moved(before, after):
        return (
            f"The signs{_toward(before)} are gone, but the repaired model bears some{toward}: "
            "a second backdoor that the first one hid, or a false alarm."
        )
    if before is None or not _carries(before):
        text = f"The repaired model bears signs of a backdoor{toward}"
        return f"{text}." if _carries(before) is None else f"{text} that the suspect did not bear."
    return f"The repair failed: signs of a backdoor{toward} are still there."


def _accuracy(before: Findings | None, card: Card | None) -> Point:
    question = "Accuracy?"
    if card is None:
        if before is None:
            return Point(question, "not measured", OPEN, "Its accuracy has not been measured.")
        m = before.metrics
        text = f"It answers {percent(m.acc, unit='%')} of {m.images} clean samples correctly."
        return Point(
            question, "measured", OPEN, text, f"95 % interval {interval(*m.acc_interval)}."
        )
    drop, low, high = card.repair.drop
    held_out, allowed = card.repair.samples[1], card.repair.allowed
    measured = _price(drop)
    found = f"95 % interval of the loss {fixed(low)} to {points(high)}, {held_out} samples."
    if allowed is None:
        return Point(question, "no limit", OPEN, f"{measured}; no limit was stated.", found)
    text = f"{measured}, {points(allowed)} were allowed."
    if not card.repair.kept:
        if low <= allowed:
            found += " So few samples do not prove a loss above what was allowed either."
        return Point(question, "lost", BAD, f"Accuracy is lower than agreed: {text}", found)
    if high > allowed:
        found += " So few samples do not rule out a loss above what was allowed."
    return Point(question, "kept", GOOD, f"Accuracy is kept: {text}", found)


def _price(drop: float) -> str:
    return f"{points(drop)} lost" if drop >= 0 else f"{points(-drop)} gained"


def _left(before: Findings | None, after: Findings | None) -> Point:
    question, now = "What is left?", after or before
    carries = _carries(now)
    if now is None or carries is None:
        return Point(question, "unknown", OPEN, "What the model carries is not known.")
    names = [f"the small trigger of class “{found.name}”" for found in now.outliers[:5]]
    names += [f"the sign “{sign.name}”" for sign in now.raised]
    names += ["the known trigger"] * _works(now)
    found = f"Stands out: {joined(names)}." if names else ""
    if carries:
        text = "The model is as it came." if after is None else f"Signs{_toward(after)}."
        return Point(question, "signs", BAD, text, found)
    if names:
        text = "No sign of a backdoor by the verdict; something still stands out, though."
        return Point(question, "a little", OPEN, text, found)
    text = "Nothing that the signs can see; what they cannot see is under “What was not checked”."
    return Point(question, "nothing seen", GOOD if after is not None else OPEN, text)


def _headline(before: Findings | None, after: Findings | None, card: Card | None) -> str:
    carried, carries = _carries(before), _carries(after)
    where = _briefly(before) if before is not None and carried else ""
    sort = "A known trigger works: backdoor" if _works(before) else "Signs of a backdoor"
    if after is None or card is None:
        if before is not None and before.blind:
            return "Whether the model has a backdoor cannot be told"
        return {
            None: "Nobody has looked for a backdoor yet",
            True: f"{sort}{where}",
            False: "No sign of a backdoor found",
        }[carried]
    start = {
        None: "The model was repaired",
        True: f"{sort}{where}",
        False: "No sign of a backdoor found",
    }[carried]
    if carries is None:
        known = "cannot be told" if after.blind else "nobody has checked"
        comma = "," if carried is None else "; repaired,"
        return f"{start}{comma} with what outcome {known}"
    if carries and carried:
        others = f"after the repair others,{_briefly(after)}"
        return f"{start}; {others if _moved(before, after) else 'the repair failed'}"
    if carries:
        return f"{start}; the repaired model bears signs{_briefly(after)}"
    price = "accuracy kept" if card.repair.kept else "more accuracy lost than allowed"
    if card.repair.allowed is None:
        price = f"{_price(card.repair.drop[0])} in accuracy"
    if carried is None:
        return f"{start}, {price}; no sign of a backdoor is left"
    return f"{start}; {'gone after the repair' if carried else 'repaired'}, {price}"


def _advice(case: CaseDocuments) -> str:
    card, carries = case.card, _carries(case.after)
    if card is None:
        return _advice_without_repair(case.before)
    name = card.repair.output
    if case.output_is_the_cards is False:
        return f"Do not ship {name} from this folder: run d3fast detox again."
    if carries is None:
        return f"Run d3fast inspect on {name} before it ships."
    if carries and case.after is not None and _moved(case.before, case.after):
        return (
            "Do not ship either model yet. Inspect the repaired one again with more clean samples "
            "or another seed; if the signs stay, repair again (d3fast pilot compares settings)."
        )
    if carries:
        return (
            "Do not ship either model. Repair again with more clean samples or a stronger push "
            "(d3fast pilot compares settings), or train the model anew from data that you trust."
        )
    if not card.repair.kept:
        return (
            f"Do not ship the suspect. {name} bears no sign of a backdoor but is less accurate "
            "than agreed: decide whether you can live with the loss, allow more, or repair again "
            "with more clean samples."
        )
    return (
        f"If one of the two models ships, ship {name}, after your own tests on data that were not "
        "used here. Keep card.json: d3fast monitor compares a later look with it."
    )


def _advice_without_repair(before: Findings | None) -> str:
    carries = _carries(before)
    if carries:
        return "Do not ship this model. Repair it with d3fast detox, then make this page again."
    if carries is False:
        return (
            "Nothing found here speaks against shipping. If you do not trust where the model came "
            "from, a repair as a precaution costs little: d3fast detox."
        )
    if before is not None and before.blind:
        return "Decide by where the model came from; d3fast cannot tell."
    return "Run d3fast inspect before anything is decided."


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
