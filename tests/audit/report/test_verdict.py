"""The verdict of an audit, for each combination of documents."""

from dataclasses import replace

import msgspec
import pytest

from d3fast.audit.report.folder import read_audit
from d3fast.audit.report.verdict import BAD, GOOD, OPEN, audit_verdict
from tests.audit.report.documents import (
    REPAIRED_SHA,
    card_rows,
    inspect_rows,
    model,
    pilot_rows,
    weights_rows,
    write,
)

SUSPICIOUS = tuple(
    {**row, "role": "repaired"} for row in model("suspect", REPAIRED_SHA, correct=437)
)


@pytest.fixture
def judge(tmp_path):
    """The verdict on a folder with these documents."""

    def judged(**documents):
        for name, rows in documents.items():
            write(tmp_path, name, rows)
        return audit_verdict(read_audit(tmp_path))

    return judged


def quiet(rows, role="suspect"):
    """The rows with a model that no detector flags."""
    other = [row for row in rows if row.get("role") != role]
    sha = next(row["sha256"] for row in rows if row.get("role") == role and row["kind"] == "model")
    calm = [{**row, "role": role} for row in model("repaired", sha)]
    return [*calm, *other]


def without_verdict(rows, role):
    """The rows of a model that was not inspected."""
    kinds = ("inversion", "sign", "verdict")
    return [row for row in rows if row.get("role") != role or row["kind"] not in kinds]


def targets(rows, *classes):
    """The rows with other target classes in each suspicious verdict."""
    return [{**row, "targets": list(classes)} if row.get("suspicious") else row for row in rows]


def triggered(rows, hits, role="suspect"):
    """The rows with a known trigger that works on so many of 400 samples."""
    counts = {"hits": hits, "robust": 0, "triggered": 400}
    return [
        {**row, **counts} if row["kind"] == "model" and row["role"] == role else row for row in rows
    ]


def two_classes(rows):
    rows = [row for row in quiet(rows) if row.get("target", 0) < 2]
    return [{**row, "value": None} if row["kind"] == "sign" else row for row in rows]


def card(**changes):
    return {"card": card_rows(**changes)}


@pytest.mark.parametrize(
    ("documents", "words", "states"),
    [
        (
            {"inspect": inspect_rows()},
            ["flagged", "no repair", "measured", "flagged"],
            [BAD, OPEN, OPEN, BAD],
        ),
        (card(), ["flagged", "repaired", "limit kept", "not flagged"], [BAD, GOOD, GOOD, GOOD]),
        (
            card(after=list(SUSPICIOUS)),
            ["flagged", "failed", "limit kept", "flagged"],
            [BAD, BAD, GOOD, BAD],
        ),
        (
            card(after=targets(SUSPICIOUS, 5)),
            ["flagged", "undecided", "limit kept", "flagged"],
            [BAD, BAD, GOOD, BAD],
        ),
        (
            card(acc_drop=3.0, acc_drop_high=5.0, kept=False),
            ["flagged", "repaired", "limit missed", "not flagged"],
            [BAD, GOOD, BAD, GOOD],
        ),
        (
            card(max_acc_drop=None),
            ["flagged", "repaired", "no limit", "not flagged"],
            [BAD, GOOD, OPEN, GOOD],
        ),
        (
            {"inspect": quiet(inspect_rows())},
            ["not flagged", "no repair", "measured", "not flagged"],
            [OPEN, OPEN, OPEN, OPEN],
        ),
        (
            {"card": quiet(card_rows())},
            ["not flagged", "repaired", "limit kept", "not flagged"],
            [OPEN, GOOD, GOOD, GOOD],
        ),
        (
            {"card": quiet(card_rows(after=list(SUSPICIOUS)))},
            ["not flagged", "failed", "limit kept", "flagged"],
            [OPEN, BAD, GOOD, BAD],
        ),
        (
            {"card": without_verdict(card_rows(), "repaired")},
            ["flagged", "not inspected", "limit kept", "unknown"],
            [BAD, OPEN, GOOD, OPEN],
        ),
        (
            {"card": without_verdict(without_verdict(card_rows(), "repaired"), "suspect")},
            ["not inspected", "not inspected", "limit kept", "unknown"],
            [OPEN, OPEN, GOOD, OPEN],
        ),
        (
            {"pilot": pilot_rows()},
            ["not inspected", "no repair", "not measured", "unknown"],
            [OPEN] * 4,
        ),
        (
            {"inspect": two_classes(inspect_rows())},
            ["undecidable", "no repair", "measured", "unknown"],
            [OPEN] * 4,
        ),
        (
            {"inspect": triggered(quiet(inspect_rows()), 390)},
            ["confirmed", "no repair", "measured", "flagged"],
            [BAD, OPEN, OPEN, BAD],
        ),
        (
            {"card": triggered(card_rows(), 300, "repaired")},
            ["flagged", "failed", "limit kept", "flagged"],
            [BAD, BAD, GOOD, BAD],
        ),
    ],
)
def test_the_findings_answer_four_questions(judge, documents, words, states):
    findings = judge(**documents).findings
    assert [finding.word for finding in findings] == words
    assert [finding.state for finding in findings] == states


@pytest.mark.parametrize(
    ("documents", "headline"),
    [
        ({"inspect": inspect_rows()}, "Possible backdoor toward class “3”"),
        ({"inspect": quiet(inspect_rows())}, "No detector flags the model"),
        ({"inspect": triggered(quiet(inspect_rows()), 390)}, "Backdoor confirmed"),
        ({"pilot": pilot_rows()}, "The model has not been inspected for a backdoor"),
        (
            {"inspect": targets(inspect_rows(), 3, 5, 7)},
            "Possible backdoor toward classes “3”, “5” and “7”",
        ),
    ],
)
def test_the_headline_without_a_repair(judge, documents, headline):
    assert judge(**documents).headline == headline


@pytest.mark.parametrize(
    ("documents", "ending"),
    [
        (card(), "no detector flags the repaired model, accuracy limit kept"),
        (card(after=list(SUSPICIOUS)), "the repair failed"),
        (card(after=targets(SUSPICIOUS, 5)), "another one toward class “5”"),
        (card(acc_drop=3.0, acc_drop_high=5.0, kept=False), "accuracy limit missed"),
        (card(max_acc_drop=None), "0.4\xa0points of accuracy lost"),
        ({"card": without_verdict(card_rows(), "repaired")}, "it was not inspected"),
        (
            {"card": quiet(card_rows(after=list(SUSPICIOUS)))},
            "possible backdoor in the repaired model toward class “3”",
        ),
    ],
)
def test_the_headline_ends_with_the_outcome_of_the_repair(judge, documents, ending):
    assert judge(**documents).headline.endswith(ending)


@pytest.mark.parametrize(
    ("documents", "start"),
    [
        ({"pilot": pilot_rows()}, "Run d3fast check first"),
        ({"inspect": inspect_rows()}, "Do not ship this model"),
        ({"inspect": quiet(inspect_rows())}, "Nothing found here speaks against shipping"),
        ({"inspect": two_classes(inspect_rows())}, "Decide by the source of the model"),
        (card(), "Ship repaired.safetensors rather than the suspect"),
        (card(after=list(SUSPICIOUS)), "Do not ship either model."),
        (card(after=targets(SUSPICIOUS, 5)), "Do not ship either model yet"),
        (card(acc_drop=3.0, acc_drop_high=5.0, kept=False), "Do not ship the suspect"),
        (
            {"card": without_verdict(card_rows(), "repaired")},
            "Run d3fast check on repaired.safetensors",
        ),
    ],
)
def test_the_advice(judge, documents, start):
    assert judge(**documents).advice.startswith(start)


def test_another_file_under_the_name_of_the_repaired_one_must_not_ship(judge, tmp_path):
    (tmp_path / "repaired.safetensors").write_bytes(b"another")
    assert judge(**card()).advice.startswith("Do not ship repaired.safetensors from this folder")


@pytest.mark.parametrize(
    ("p_value", "basis"), [(None, "Not for this kind."), (0.02, "Not for this kind. Not repaired.")]
)
def test_what_the_verdicts_rest_on_is_said_once_and_of_the_repair_beside_a_p_value(
    judge, p_value, basis
):
    rows = [dict(row) for row in card_rows()]
    said = {"suspect": "Not for this kind.", "repaired": "Not repaired."}
    for row in rows:
        if row["kind"] == "verdict":
            row["basis"] = said[row["role"]]
            row["p_value"] = p_value if row["role"] == "suspect" else None
    assert judge(card=rows).basis == basis


def test_no_sentence_calls_a_model_safe(judge):
    verdict = judge(inspect=quiet(inspect_rows()))
    assert "does not prove" in verdict.findings[0].text
    assert "What was not checked" in verdict.findings[3].text


def test_a_card_that_says_kept_against_its_own_numbers_is_not_believed(judge):
    found = judge(**card(acc_drop=30.0, acc_drop_high=40.0, kept=True))
    assert found.findings[2].word == "limit missed"


@pytest.mark.parametrize(
    ("changes", "caveat"),
    [
        ({}, "may be above the limit"),
        ({"acc_drop": 3.0, "acc_drop_high": 9.0, "kept": False}, "may be within the limit"),
        ({"acc_drop_high": 0.9}, "0.9\xa0points, 112 held-out samples."),
    ],
)
def test_an_interval_that_holds_the_limit_is_a_caveat(judge, changes, caveat):
    assert judge(**card(**changes)).findings[2].evidence.endswith(f"{caveat.rstrip('.')}.")


def test_a_card_without_an_inspection_takes_that_of_inspect_json(judge):
    found = judge(card=without_verdict(card_rows(), "suspect"), inspect=inspect_rows())
    assert found.headline == judge(**card()).headline


def test_a_measurement_above_its_threshold_is_named_in_spite_of_the_verdict(judge):
    rows = quiet(inspect_rows())
    rows = [{**row, "raised": True} if row.get("name") == "perturbation" else row for row in rows]
    finding = judge(inspect=rows).findings[3]
    assert finding.word == "outlier"
    assert "the detector “perturbation”" in finding.evidence


def test_the_rate_of_a_known_trigger_is_evidence(judge):
    found = judge(card=triggered(card_rows(), 300, "repaired"))
    assert "75.0\xa0% of 400 samples" in found.findings[1].evidence
    assert "the known trigger" in found.findings[3].evidence


def test_a_known_trigger_that_no_detector_saw_is_the_reason_for_the_repair(judge):
    found = judge(card=triggered(quiet(card_rows()), 300))
    assert found.findings[1].text.startswith("The known trigger works no more")


def test_a_trigger_that_works_as_often_as_on_clean_models_confirms_nothing(judge):
    assert judge(inspect=triggered(quiet(inspect_rows()), 40)).findings[0].word == "not flagged"


def test_a_headline_counts_classes_whose_names_would_fill_it(judge):
    long = 40 * "x"
    rows = [
        {**row, "class": f"{row['class']} {long}"} if row["kind"] == "inversion" else row
        for row in targets(inspect_rows(), 3, 5)
    ]
    found = judge(inspect=rows)
    assert found.headline == "Possible backdoor toward 2 classes"
    assert long in found.findings[0].text


def test_a_repair_of_an_uninspected_suspect_that_is_flagged_afterwards(tmp_path):
    write(tmp_path, "card", without_verdict(card_rows(after=list(SUSPICIOUS)), "suspect"))
    audit = read_audit(tmp_path)
    assert audit_verdict(audit).findings[1].word == "failed"
    unnamed = msgspec.structs.replace(audit.card.repaired.verdict, targets=())
    repaired = replace(audit.card.repaired, verdict=unnamed)
    audit = replace(audit, card=replace(audit.card, repaired=repaired))
    assert "toward" not in audit_verdict(audit).findings[1].text


def test_weights_alone_decide_where_nothing_was_inspected(judge):
    found = judge(weights=weights_rows())
    assert found.headline == "Possible backdoor; only its weights were read"
    assert (found.findings[0].state, found.findings[0].word) == (BAD, "flagged")
    assert found.findings[0].evidence == "Above their threshold: head-norm."
    assert "--data" in found.advice
    calm = [{**row, "raised": False, "suspicious": False} for row in weights_rows()]
    assert judge(weights=calm).headline == "No detector flags the model; only its weights were read"


def test_an_inspection_comes_before_the_weights(judge):
    assert "weights" not in judge(inspect=inspect_rows(), weights=weights_rows()).headline
