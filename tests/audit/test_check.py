"""The inspection as a step of an audit."""

from dataclasses import replace

import pytest
import torch

from d3fast.audit import InspectOptions
from d3fast.audit.calibration import parse_calibration
from d3fast.audit.check import inspect_audit, inspection_document, scan_document
from d3fast.audit.inversion import InversionOptions
from d3fast.audit.model_report import parse_model_report
from d3fast.results.store import Results
from tests.audit.audits import SHA, small_audit
from tests.audit.calibrations import calibration_rows

SHORT = InspectOptions(
    inversion=InversionOptions(steps=5, batch_size=4), detectors=("patch", "head")
)


def test_the_document_is_about_the_suspect_and_has_the_options():
    audit = small_audit()
    document = inspection_document(audit, inspect_audit(audit, SHORT, progress=False), SHORT)
    report = parse_model_report(document.rows, "suspect")
    assert report.model.sha256 == SHA
    assert document.settings["options"]["detectors"] == ("patch", "head")
    assert document.settings["classes"] == list("abcd")
    assert document.command.startswith("d3fast inspect --model mine:make --steps 5")


def test_the_scan_is_about_the_suspect_and_missing_where_there_is_no_head():
    audit = small_audit()
    document = scan_document(audit)
    assert document.settings["sha256"] == SHA
    assert next(row["name"] for row in document.rows if row["kind"] == "sign") == "head"
    bare = replace(audit, suspect=replace(audit.suspect, model=torch.nn.Identity()))
    assert scan_document(bare) is None


def test_the_repaired_copy_is_inspected_on_the_same_samples():
    audit = small_audit()
    other = small_audit(seed=1).model
    first, second = (inspect_audit(audit, SHORT, model=m, progress=False) for m in (None, other))
    assert first.metrics.images == second.metrics.images == 40
    assert not torch.equal(first.inversions[0].mask, second.inversions[0].mask)


@pytest.fixture
def shipped(monkeypatch):
    """A calibration of the package that fits the audit and has scores of two detectors."""
    rows = calibration_rows(
        small_audit().model, shape=(1, 4, 4), classes=4, names=("head", "margin")
    )
    document = Results("", {}, [row.to_row() for row in rows])
    document.rows[0]["classes_sha256"] = None
    found = parse_calibration(document, SHA)
    monkeypatch.setattr("d3fast.audit.calibration.shipped_calibrations", lambda: (found,))


@pytest.mark.usefixtures("shipped")
def test_the_detectors_that_a_calibration_has_scores_of_run_unless_others_are_named():
    audit = small_audit()
    found = inspect_audit(audit, progress=False)
    assert [(result.name, result.p_value is None) for result in found.results] == [
        ("head", False),
        ("margin", False),
    ]
    named = inspect_audit(audit, InspectOptions(detectors=("head",)), progress=False)
    assert [result.name for result in named.results] == ["head"]


@pytest.mark.usefixtures("shipped")
def test_a_repaired_copy_is_not_compared_with_models_that_were_not_repaired():
    audit, repaired = small_audit(), small_audit(seed=1).model
    options = InspectOptions(detectors=("head",))
    suspect = inspect_audit(audit, options, model=audit.model, progress=False)
    assert suspect.verdict.text.startswith("Calibrated on 39 clean models")
    after = inspect_audit(audit, options, model=repaired, progress=False)
    assert after.verdict.text.startswith("Not calibrated for repaired models")
