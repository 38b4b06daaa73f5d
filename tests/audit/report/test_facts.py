"""What all machine-readable outputs of an audit say."""

import pytest

from d3fast.audit.report.facts import facts_of
from d3fast.audit.report.folder import read_audit
from tests.audit.report.documents import REPAIRED_SHA, SUSPECT_SHA, inspect_rows, settings, write


@pytest.fixture
def facts(tmp_path):
    def made(*names):
        for name in names:
            write(tmp_path, name)
        return facts_of(read_audit(tmp_path))

    return made


def test_they_name_the_suspect_and_not_its_folder(facts):
    found = facts("inspect")
    assert (found.name, found.spec) == (settings()["checkpoint"], settings()["model"])
    assert (found.sha256, found.parameters) == (SUSPECT_SHA, 307690)
    assert found.origin.command == "d3fast inspect"


def test_an_inspection_decides_where_there_is_one(facts):
    both = [row.name for row in facts("inspect", "weights").detectors]
    assert both == [row["name"] for row in inspect_rows() if row["kind"] == "sign"]


def test_the_weights_alone_are_enough(facts):
    found = facts("weights")
    assert found.suspicious
    assert found.text == "Possible backdoor."
    assert [row.name for row in found.detectors if row.flagged] == ["head-norm"]


def test_after_a_repair_they_are_still_about_the_suspect(facts):
    found = facts("card")
    assert found.sha256 == SUSPECT_SHA != REPAIRED_SHA
    assert found.suspicious


@pytest.mark.parametrize("name", ["pilot", "spectrum"])
def test_an_audit_without_an_inspection_has_none(facts, name):
    with pytest.raises(ValueError, match="no inspection: run d3fast check"):
        facts(name)
