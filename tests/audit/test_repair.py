"""A repair as a step of an audit: what is measured, which limit holds, what is written."""

from dataclasses import replace

import pytest
import torch

from d3fast.attacks import BadNets
from d3fast.audit import InspectOptions
from d3fast.audit.repair import RepairOptions, prepare_repair
from d3fast.audit.report.documents import parse_card
from d3fast.detox import D3Config
from d3fast.io.files import sha256
from d3fast.results.store import read_results
from d3fast.training.metrics import evaluate
from d3fast.training.paired import resolved_limit
from tests.audit.audits import SHA, small_audit

CONFIG = D3Config(epochs=2, backend="reference")
OPTIONS = RepairOptions(CONFIG, inspection=InspectOptions(detectors=("head",)))


@pytest.fixture(scope="module")
def repaired():
    return prepare_repair(small_audit(), OPTIONS).run(progress=False)


def test_the_suspect_is_measured_on_the_held_out_samples_and_not_changed():
    audit = small_audit()
    before = {name: value.clone() for name, value in audit.model.state_dict().items()}
    repair = prepare_repair(audit, OPTIONS)
    held_out = repair.parts[1]
    assert repair.before.correct == evaluate(audit.model, held_out.batches(8), None).correct
    assert int(repair.answers.sum()) == repair.before.correct
    repair.run(progress=False)
    assert all(torch.equal(before[name], v) for name, v in audit.model.state_dict().items())


def test_the_usual_limit_is_raised_to_what_the_samples_resolve_and_that_of_the_user_is_not():
    audit = small_audit()
    options = replace(OPTIONS, config=replace(CONFIG, max_acc_drop=1.0))
    repair = prepare_repair(audit, options)
    assert repair.limit == resolved_limit(1.0, repair.before.correct, 10)
    assert prepare_repair(audit, replace(options, limited=True)).limit == 1.0
    assert prepare_repair(audit, OPTIONS).limit is None


def test_weights_and_card_are_about_each_other(repaired, tmp_path):
    weights, path = repaired.write(tmp_path)
    card = parse_card(read_results(path).rows)
    assert (card.repair.output, card.repair.output_sha256) == (weights.name, sha256(weights))
    assert card.suspect.model.sha256 == card.repair.input_sha256 == SHA
    assert (card.repair.lost, card.repair.gained) == (repaired.pair.lost, repaired.pair.gained)
    assert [report.verdict is not None for report in (card.suspect, card.repaired)] == [True, True]


def test_an_earlier_inspection_of_the_suspect_is_taken_as_it_is(repaired):
    earlier = [row for row in repaired.inspected if row["role"] == "suspect"]
    again = prepare_repair(small_audit(), OPTIONS).run(earlier, progress=False)
    assert again.inspected == repaired.inspected


def test_without_an_inspection_there_are_no_rows_of_one():
    plain = prepare_repair(small_audit(), replace(OPTIONS, inspection=None))
    assert plain.run(progress=False).inspected == []


def test_a_trigger_that_does_not_fit_is_refused_before_the_repair():
    with pytest.raises(ValueError, match=r"target must be in 0\.\.3"):
        prepare_repair(small_audit(), OPTIONS, BadNets(target=9, size=1))


def test_unlabelled_samples_are_part_of_the_repair_and_of_its_identity(repaired, tmp_path):
    audit = small_audit()
    more = audit.data.subset(torch.arange(5))
    repair = prepare_repair(audit, OPTIONS, unlabelled=more)
    assert repair.identity != repaired.repair.identity
    assert len(repair.generators) == len(repaired.repair.generators) + 1
    _, path = repair.run(progress=False).write(tmp_path)
    assert read_results(path).settings["unlabelled"] == 5
