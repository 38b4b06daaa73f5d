"""The verdict of a case in words, for each combination of what was found."""

from dataclasses import replace

import pytest

from d3fast.audit.findings import findings
from d3fast.audit.report.folder import read_case
from d3fast.audit.report.verdict import BAD, GOOD, OPEN, verdict
from d3fast.training.metrics import Metrics
from tests.audit.report.documents import (
    REPAIRED_SHA,
    card_rows,
    inspect_rows,
    model,
    pilot_rows,
    write,
)

SUSPICIOUS = tuple(
    {**row, "role": "repaired"} for row in model("suspect", REPAIRED_SHA, correct=437)
)


def plain(found):
    """The verdict with all spaces alike."""
    points = [
        replace(point, text=point.text.replace("\xa0", " "), found=point.found.replace("\xa0", " "))
        for point in found.points
    ]
    return replace(found, points=points, headline=found.headline.replace("\xa0", " "))


@pytest.fixture
def judge(tmp_path):
    """The verdict on a folder with these documents."""

    def judged(**documents):
        for name, rows in documents.items():
            write(tmp_path, name, rows)
        return plain(verdict(read_case(tmp_path)))

    return judged


def quiet(rows, role="suspect"):
    """The rows with a model that bears no sign."""
    other = [row for row in rows if row.get("role") != role]
    sha = next(row["sha256"] for row in rows if row.get("role") == role and row["kind"] == "model")
    calm = [{**row, "role": role} for row in model("repaired", sha)]
    return [*calm, *other]


def without_verdict(rows, role):
    """The rows of a model that nobody inspected."""
    kinds = ("inversion", "sign", "verdict")
    return [row for row in rows if row.get("role") != role or row["kind"] not in kinds]


def words(found):
    return [point.word for point in found.points]


def test_found_and_repaired(judge):
    found = judge(card=card_rows())
    assert (
        found.headline
        == "Signs of a backdoor toward class “3”; gone after the repair, accuracy kept"
    )
    assert words(found) == ["signs", "yes", "kept", "nothing seen"]
    assert [point.state for point in found.points] == [BAD, GOOD, GOOD, GOOD]
    assert found.advice.startswith("If one of the two models ships, ship repaired.safetensors")


def test_found_and_not_yet_repaired(judge):
    found = judge(inspect=inspect_rows())
    assert found.headline == "Signs of a backdoor toward class “3”"
    assert words(found) == ["signs", "no repair", "measured", "signs"]
    assert found.advice.startswith("Do not ship this model. Repair it")


def test_found_and_still_there(judge):
    found = judge(card=card_rows(after=list(SUSPICIOUS)))
    assert found.headline == "Signs of a backdoor toward class “3”; the repair failed"
    assert words(found) == ["signs", "no", "kept", "signs"]
    assert found.points[1].text.startswith("The repair failed")
    assert found.advice.startswith("Do not ship either model")


def test_found_and_another_one_afterwards(judge):
    other = [{**row, "targets": [5]} if row["kind"] == "verdict" else row for row in SUSPICIOUS]
    found = judge(card=card_rows(after=other))
    assert (
        found.headline
        == "Signs of a backdoor toward class “3”; after the repair others, toward class “5”"
    )
    assert found.points[1].word == "not certain"
    assert found.points[1].text == (
        "The signs toward class “3” are gone, but the repaired model bears some toward class “5”: "
        "a second backdoor that the first one hid, or a false alarm."
    )
    assert found.advice.startswith("Do not ship either model yet. Inspect the repaired one again")


def test_found_and_repaired_at_too_high_a_price(judge):
    found = judge(card=card_rows(acc_drop=3.0, acc_drop_high=5.0, kept=False))
    assert found.headline.endswith("; gone after the repair, more accuracy lost than allowed")
    assert (found.points[2].word, found.points[2].state) == ("lost", BAD)
    assert "3.0 points lost, 1.0 points were allowed" in found.points[2].text
    assert found.advice.startswith("Do not ship the suspect. repaired.safetensors bears no sign")


def test_a_card_that_says_kept_against_its_own_numbers_is_not_believed(judge):
    found = judge(card=card_rows(acc_drop=30.0, acc_drop_high=40.0, kept=True))
    assert found.points[2].word == "lost"


def test_an_interval_beyond_the_budget_is_said(judge):
    assert "do not rule out" in judge(card=card_rows()).points[2].found


def test_a_loss_that_so_few_samples_do_not_prove_is_said(judge):
    found = judge(card=card_rows(acc_drop=3.0, acc_drop_high=9.0, kept=False)).points[2].found
    assert "do not prove a loss above what was allowed" in found


def test_an_interval_within_the_budget_needs_no_caveat(judge):
    found = judge(card=card_rows(acc_drop_high=0.9)).points[2].found
    assert found == "95 % interval of the loss −0.9 to 0.9 points, 112 samples."


def test_without_a_stated_limit_nothing_is_kept_or_lost(judge):
    found = judge(card=card_rows(max_acc_drop=None))
    assert (found.points[2].word, found.points[2].state) == ("no limit", OPEN)
    assert found.headline.endswith("0.4 points lost in accuracy")


def test_no_sign_and_no_repair(judge):
    found = judge(inspect=quiet(inspect_rows()))
    assert found.headline == "No sign of a backdoor found"
    assert words(found) == ["no sign", "no repair", "measured", "nothing seen"]
    assert [point.state for point in found.points] == [OPEN] * 4
    assert "does not prove" in found.points[0].text


def test_no_sign_and_a_repair_as_a_precaution(judge):
    found = judge(card=quiet(card_rows()))
    assert found.headline == "No sign of a backdoor found; repaired, accuracy kept"
    assert found.points[1].text.endswith("as a precaution: no sign before, none after.")


def test_no_sign_before_but_after(judge):
    found = judge(card=quiet(card_rows(after=list(SUSPICIOUS))))
    assert (
        found.headline
        == "No sign of a backdoor found; the repaired model bears signs toward class “3”"
    )
    assert found.points[1].text.endswith("that the suspect did not bear.")
    assert found.points[3].state == BAD


def test_a_repair_whose_outcome_nobody_inspected(judge):
    found = judge(card=without_verdict(card_rows(), "repaired"))
    assert found.headline == (
        "Signs of a backdoor toward class “3”; repaired, with what outcome nobody has checked"
    )
    assert words(found)[1] == "not checked"
    assert found.advice == "Run d3fast inspect on repaired.safetensors before it ships."


def test_a_card_without_inspection_borrows_that_of_inspect_json(judge):
    found = judge(card=without_verdict(card_rows(), "suspect"), inspect=inspect_rows())
    assert (
        found.headline
        == "Signs of a backdoor toward class “3”; gone after the repair, accuracy kept"
    )


def test_a_card_without_inspection_alone(judge):
    rows = without_verdict(without_verdict(card_rows(), "suspect"), "repaired")
    found = judge(card=rows)
    assert found.headline == "The model was repaired, with what outcome nobody has checked"
    assert words(found) == ["not looked for", "not checked", "kept", "unknown"]


def test_a_pilot_alone_says_that_nobody_has_looked(judge):
    found = judge(pilot=pilot_rows())
    assert found.headline == "Nobody has looked for a backdoor yet"
    assert words(found) == ["not looked for", "no repair", "not measured", "unknown"]
    assert found.advice == "Run d3fast inspect before anything is decided."


def test_two_classes_are_too_few_to_tell(judge):
    rows = [row for row in quiet(inspect_rows()) if row.get("target", 0) < 2]
    rows = [{**row, "value": None} if row["kind"] == "sign" else row for row in rows]
    found = judge(inspect=rows)
    assert found.headline == "Whether the model has a backdoor cannot be told"
    assert words(found)[0] == "cannot tell"
    assert found.advice == "Decide by where the model came from; d3fast cannot tell."


def test_something_that_stands_out_without_a_verdict_is_named(judge):
    rows = quiet(inspect_rows())
    rows = [{**row, "raised": True} if row.get("name") == "perturbation" else row for row in rows]
    left = judge(inspect=rows).points[3]
    assert (left.word, left.found) == ("a little", "Stands out: the sign “perturbation”.")


def test_several_targets_are_listed(judge):
    rows = [
        {**row, "targets": [3, 5, 7]} if row["kind"] == "verdict" else row for row in inspect_rows()
    ]
    assert judge(inspect=rows).headline == "Signs of a backdoor toward classes “3”, “5” and “7”"


def test_a_headline_counts_classes_whose_names_would_fill_it(judge):
    rows = [
        {**row, "class": f"{row['class']} " + 40 * "x"} if row["kind"] == "inversion" else row
        for row in inspect_rows()
    ]
    rows = [{**row, "targets": [3, 5]} if row["kind"] == "verdict" else row for row in rows]
    found = judge(inspect=rows)
    assert found.headline == "Signs of a backdoor toward 2 classes"
    assert 40 * "x" in found.points[0].text


def test_another_file_under_the_name_of_the_repaired_one_must_not_ship(judge, tmp_path):
    (tmp_path / "repaired.safetensors").write_bytes(b"another")
    found = judge(card=card_rows())
    assert found.advice.startswith("Do not ship repaired.safetensors from this folder")


def test_a_known_trigger_that_still_works_outweighs_quiet_signs(tmp_path):
    write(tmp_path, "card")
    case = read_case(tmp_path)
    works = Metrics(correct=437, images=450, hits=300, robust=50, triggered=400)
    after = replace(findings(card_rows(), "repaired"), metrics=works)
    found = plain(verdict(replace(case, card=replace(case.card, repaired=after))))
    assert found.points[1].word == "no"
    assert "known trigger works on 75.0 % of 400 samples" in found.points[1].found
    assert found.points[3].found == "Stands out: the known trigger."


def test_a_known_trigger_that_works_is_more_than_a_sign(tmp_path):
    rows = [
        {**row, "hits": 390, "robust": 1, "triggered": 400} if row["kind"] == "model" else row
        for row in quiet(inspect_rows())
    ]
    write(tmp_path, "inspect", rows)
    found = plain(verdict(read_case(tmp_path)))
    assert (found.points[0].word, found.points[0].state) == ("found", BAD)
    assert found.points[0].text == "The model has a backdoor: a known trigger works."
    assert found.headline == "A known trigger works: backdoor"
