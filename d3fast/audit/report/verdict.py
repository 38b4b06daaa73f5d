# SPDX-License-Identifier: Apache-2.0
"""The verdict of an audit in plain sentences, for the person who decides whether a model ships.

A headline, four findings (backdoor, repair, accuracy, what remains) and one sentence of advice. No
sentence calls a model safe: detectors that do not flag a model prove nothing.
"""

from dataclasses import dataclass

from d3fast.audit.model_report import ModelReport
from d3fast.audit.report.documents import Card, ScanReport
from d3fast.audit.report.folder import AuditDocuments
from d3fast.audit.verdict import models_like_this
from d3fast.results.format import fixed, interval, joined, percent, points, significant
from d3fast.training.metrics import MAX_FLOOR

_UNDECIDABLE = "This model has too few classes to compare with each other, and no calibration."
GOOD, BAD, OPEN = "reached", "missed", "unmeasured"  # names of styles
_MAX_NAMES = 5


@dataclass(frozen=True)
class Finding:
    """One line of the verdict.

    Attributes:
        question: that it answers.
        word: the answer in one or two words.
        state: ``GOOD``, ``BAD`` or ``OPEN``.
        text: the answer in a sentence.
        evidence: the numbers behind it.
    """

    question: str
    word: str
    state: str
    text: str
    evidence: str = ""


@dataclass(frozen=True)
class AuditVerdict:
    """Headline, findings and advice.

    Attributes:
        headline: title of the page.
        basis: on which kind of models the detectors were calibrated, where that is known.
        findings: backdoor, repair, accuracy, what remains.
        advice: what to do next.
    """

    headline: str
    basis: str
    findings: tuple[Finding, ...]
    advice: str


def _trigger_works(report: ModelReport | None) -> bool:
    """A known trigger causes more errors than on models that were never poisoned."""
    if report is None:
        return False
    m = report.metrics
    return 100 * ((m.asr if m.lift is None else m.lift) or 0.0) > MAX_FLOOR


def backdoored(report: ModelReport | None) -> bool | None:
    """Return whether a detector flags a model or a known trigger works.

    Args:
        report: about the model; ``None`` where it was not inspected.

    Returns:
        ``None`` where nothing is known.
    """
    if report is None or _trigger_works(report):
        return None if report is None else True
    return None if report.undecidable else report.suspicious


def _toward(report: ModelReport) -> str:
    """`` toward class “3”``, or nothing where no class is named."""
    names = [f"“{report.class_name(target)}”" for target in report.targets[:_MAX_NAMES]]
    if not names:
        return ""
    more = len(report.targets) - len(names)
    listed = joined([*names, *([f"{more} more"] if more > 0 else [])])
    return f" toward {'class' if len(report.targets) == 1 else 'classes'} {listed}"


def _toward_short(report: ModelReport) -> str:
    """The same for a headline: classes with long names are counted."""
    toward = _toward(report)
    return toward if len(toward) < 80 else f" toward {len(report.targets)} classes"


def _evidence(report: ModelReport) -> str:
    """Count the flagging detectors and the outliers; give the rate of a known trigger."""
    parts = []
    if report.detectors:
        parts.append(f"{len(report.flagged)} of {len(report.detectors)} detectors flag the model.")
    found = report.verdict
    if found is not None and found.p_value is not None:
        like = models_like_this(found.p_value)
        parts.append(f"{like[0].upper()}{like[1:]} (p = {significant(found.p_value, 2)}).")
    if report.inversions:
        what = "tokens above a threshold" if report.of_texts else "an unusually small trigger"
        parts.append(f"Classes with {what}: {len(report.outliers)} of {len(report.inversions)}.")
    m = report.metrics
    if m.asr is not None and m.asr_interval is not None:
        parts.append(
            f"The known trigger works on {percent(m.asr, unit='%')} of {m.triggered} samples "
            f"(95 % interval {interval(*m.asr_interval)})."
        )
    return " ".join(parts)


def _backdoor(before: ModelReport | None) -> Finding:
    question, signs = "Backdoor?", backdoored(before)
    if before is None or (signs is None and not before.undecidable):
        text = "The model has not been inspected for a backdoor."
        return Finding(question, "not inspected", OPEN, text)
    if signs is None:
        return Finding(question, "undecidable", OPEN, _UNDECIDABLE)
    evidence = _evidence(before)
    if _trigger_works(before):
        text = f"The model has a backdoor{_toward(before)}: the known trigger works."
        return Finding(question, "confirmed", BAD, text, evidence)
    if signs:
        text = f"The model may have a backdoor{_toward(before)}."
        return Finding(question, "flagged", BAD, text, evidence)
    text = "No detector flags the model. This does not prove that it has no backdoor."
    return Finding(question, "not flagged", OPEN, text, evidence)


def _repaired(before: ModelReport | None, after: ModelReport | None) -> Finding:
    question, signs = "Repaired?", backdoored(after)
    if after is None:
        return Finding(question, "no repair", OPEN, "The model has not been repaired.")
    if signs is None:
        text = "The model was repaired. The repaired model has not been inspected."
        if after.undecidable:
            text = f"The model was repaired. {_UNDECIDABLE}"
        return Finding(question, "not inspected", OPEN, text)
    if signs:
        word = "undecided" if _moved(before, after) else "failed"
        return Finding(question, word, BAD, _failure(before, after), _evidence(after))
    text = {
        None: "The model was repaired. No detector flags the repaired model.",
        True: "Detectors flagged the suspect; none flags the repaired model.",
        False: "The repair was a precaution: no detector flags either model.",
    }[backdoored(before)]
    if _trigger_works(before):
        text = "The known trigger works no more; no detector flags the repaired model."
    return Finding(question, "repaired", GOOD, text, _evidence(after))


def _moved(before: ModelReport | None, after: ModelReport) -> bool:
    """Detectors name other classes after the repair than before it."""
    if before is None or _trigger_works(after) or not before.targets or not after.targets:
        return False
    return not set(before.targets) & set(after.targets)


def _failure(before: ModelReport | None, after: ModelReport) -> str:
    toward = _toward(after)
    if before is not None and _moved(before, after):
        return (
            f"Detectors no longer flag a backdoor{_toward(before)}, but they flag one{toward}: "
            "a second backdoor that the first one hid, or a false alarm."
        )
    if backdoored(before):
        return f"The repair failed: the repaired model may still have a backdoor{toward}."
    text = f"The repaired model may have a backdoor{toward}"
    return f"{text}; the suspect was not flagged." if before is not None else f"{text}."


def _accuracy(before: ModelReport | None, card: Card | None) -> Finding:
    question = "Accuracy?"
    if card is None:
        if before is None:
            return Finding(question, "not measured", OPEN, "Accuracy has not been measured.")
        m = before.metrics
        text = f"The model answers {percent(m.acc)} % of {m.images} clean samples correctly."
        evidence = f"95 % interval {interval(*m.acc_interval)}."
        return Finding(question, "measured", OPEN, text, evidence)
    repair = card.repair
    low, high, limit = repair.acc_drop_low, repair.acc_drop_high, repair.max_acc_drop
    kind = "Paired 95" if repair.lost is not None else "95"  # of release 0.1: independent
    evidence = (
        f"{kind} % interval of the loss {fixed(low)} to {points(high)}, "
        f"{repair.held_out_samples} held-out samples."
    )
    change = _change(repair.acc_drop)
    if limit is None:
        return Finding(question, "no limit", OPEN, f"{change}. No limit was set.", evidence)
    text = f"{change}; the limit is {points(limit)}."
    if not repair.within_limit:
        if low <= limit:
            evidence += " With so few samples the true loss may be within the limit."
        return Finding(question, "limit missed", BAD, text, evidence)
    if high > limit:
        evidence += " With so few samples the true loss may be above the limit."
    return Finding(question, "limit kept", GOOD, text, evidence)


def _change(drop: float) -> str:
    return f"{points(abs(drop))} of accuracy {'lost' if drop >= 0 else 'gained'}"


def _remaining(before: ModelReport | None, after: ModelReport | None) -> Finding:
    question, now = "What remains?", after or before
    signs = backdoored(now)
    if now is None or signs is None:
        return Finding(question, "unknown", OPEN, "Nothing is known about the model.")
    names = [f"the inverted trigger of class “{row.name}”" for row in now.outliers[:_MAX_NAMES]]
    names += [f"the detector “{result.name}”" for result in now.flagged]
    names += ["the known trigger"] * _trigger_works(now)
    evidence = f"Above its threshold: {joined(names)}." if names else ""
    if signs:
        text = f"A possible backdoor{_toward(now)}."
        if after is None:
            text = "The model is unchanged."
        return Finding(question, "flagged", BAD, text, evidence)
    if names:
        text = "The verdict is negative, but not every measurement is below its threshold."
        return Finding(question, "outlier", OPEN, text, evidence)
    text = "No detector flags the model. Limits: see “What was not checked”."
    return Finding(question, "not flagged", GOOD if after is not None else OPEN, text)


def _headline(before: ModelReport | None, after: ModelReport | None, card: Card | None) -> str:
    was, now = backdoored(before), backdoored(after)
    toward = _toward_short(before) if before is not None and was else ""
    found = "Backdoor confirmed" if _trigger_works(before) else "Possible backdoor"
    if after is None or card is None:
        if before is not None and before.undecidable:
            return "Inspection cannot decide: the model has too few classes"
        return {
            None: "The model has not been inspected for a backdoor",
            True: f"{found}{toward}",
            False: "No detector flags the model",
        }[was]
    start = {
        None: "The model was repaired",
        True: f"{found}{toward}",
        False: "No detector flags the suspect",
    }[was]
    if now is None:
        known = "inspection cannot decide" if after.undecidable else "it was not inspected"
        return f"{start}; after the repair {known}"
    if now and was:
        moved = f"after the repair another one{_toward_short(after)}"
        return f"{start}; {moved if _moved(before, after) else 'the repair failed'}"
    if now:
        return f"{start}; possible backdoor in the repaired model{_toward_short(after)}"
    accuracy = f"accuracy limit {'kept' if card.repair.within_limit else 'missed'}"
    if card.repair.max_acc_drop is None:
        accuracy = _change(card.repair.acc_drop)
    if was is False:
        return f"No detector flags the model before or after the repair; {accuracy}"
    return f"{start}; no detector flags the repaired model, {accuracy}"


def _advice(audit: AuditDocuments) -> str:
    card, now = audit.card, backdoored(audit.after)
    if card is None:
        return _advice_without_repair(audit.before)
    name = card.repair.output
    if audit.output_matches is False:
        return f"Do not ship {name} from this folder. Run d3fast repair again."
    if now is None:
        return f"Run d3fast check on {name} before it ships."
    if now and audit.after is not None and _moved(audit.before, audit.after):
        return (
            "Do not ship either model yet. Inspect the repaired model again with more clean "
            "samples or another seed. If it is still flagged, repair it again (d3fast pilot "
            "compares settings)."
        )
    if now:
        return (
            "Do not ship either model. Repair again with more clean samples or a larger distance "
            "weight (d3fast pilot compares settings), or retrain the model on trusted data."
        )
    if not card.repair.within_limit:
        return (
            f"Do not ship the suspect. No detector flags {name}, but it lost more accuracy than "
            "the limit allows: accept the loss, raise the limit, or repair again with more clean "
            "samples."
        )
    return (
        f"Ship {name} rather than the suspect, and only after your own tests on data that were "
        "not used here. Keep card.json: d3fast monitor compares later inspections with it."
    )


def _advice_without_repair(before: ModelReport | None) -> str:
    signs = backdoored(before)
    if signs:
        return "Do not ship this model. Repair it: d3fast repair."
    if signs is False:
        return (
            "Nothing found here speaks against shipping, which says little of a kind of model that "
            "the detectors were not calibrated for. If you do not trust the source of the model, "
            "repair it as a precaution: d3fast repair."
        )
    if before is not None and before.undecidable:
        return "Decide by the source of the model; d3fast cannot tell."
    return "Run d3fast check first."


def _of_weights(scan: ScanReport) -> AuditVerdict:
    """Return the verdict where only the weights were read."""
    flagged = ", ".join(row.name for row in scan.detectors if row.flagged)
    found = scan.verdict.suspicious
    backdoor = Finding(
        "Backdoor?",
        "flagged" if found else "not flagged",
        BAD if found else OPEN,
        scan.verdict.text,
        f"Above their threshold: {flagged}." if flagged else "",
    )
    start = "Possible backdoor" if found else "No detector flags the model"
    return AuditVerdict(
        headline=f"{start}; only its weights were read",
        basis="",
        findings=(backdoor, _repaired(None, None), _accuracy(None, None), _remaining(None, None)),
        advice="Run d3fast check with clean samples (--data) before the model ships.",
    )


def _basis(before: ModelReport | None, after: ModelReport | None) -> str:
    """Return what the verdicts rest on; one that has no calibration says so once."""
    found = [report.verdict for report in (before, after) if report and report.verdict]
    if found and found[0].p_value is None:
        found = found[:1]
    return " ".join(dict.fromkeys(verdict.basis for verdict in found if verdict.basis))


def audit_verdict(audit: AuditDocuments) -> AuditVerdict:
    """Put the documents of an audit into sentences.

    Args:
        audit: of ``read_audit``.
    """
    before, after, card = audit.before, audit.after, audit.card
    if before is None and card is None and audit.weights is not None:
        return _of_weights(audit.weights)
    return AuditVerdict(
        headline=_headline(before, after, card),
        basis=_basis(before, after),
        findings=(
            _backdoor(before),
            _repaired(before, after),
            _accuracy(before, card),
            _remaining(before, after),
        ),
        advice=_advice(audit),
    )
