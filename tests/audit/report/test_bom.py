"""The bill of materials: what the schema requires, hashes, accuracy, pedigree of a repair."""

import json
import re

import pytest

from d3fast.audit.report.bom import bom
from d3fast.audit.report.facts import facts_of
from d3fast.audit.report.folder import read_audit
from tests.audit.report.documents import REPAIRED_SHA, SUSPECT_SHA, calibrate, edit, write


@pytest.fixture
def made(tmp_path):
    def document(*names):
        for name in names:
            write(tmp_path, name)
        audit = read_audit(tmp_path)
        model = None if audit.before is None else audit.before.model
        return bom(facts_of(audit), model, audit.card)

    return document


def properties(component):
    return {each["name"]: each["value"] for each in component["properties"]}


@pytest.mark.parametrize("names", [("inspect",), ("weights",), ("inspect", "card")])
def test_it_has_what_the_schema_requires(made, names, tmp_path):
    document = made(*names)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    uuid = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    assert re.fullmatch(f"urn:uuid:{uuid}", document["serialNumber"])
    component = document["metadata"]["component"]
    assert component["type"] == "machine-learning-model"
    assert component["name"]
    assert all(isinstance(value, str) for value in properties(component).values())
    assert str(tmp_path) not in json.dumps(document)


def test_an_inspected_model_has_its_hash_its_verdict_and_its_accuracy(made):
    component = made("inspect")["metadata"]["component"]
    assert component["hashes"] == [{"alg": "SHA-256", "content": SUSPECT_SHA}]
    assert properties(component)["d3fast:suspicious"] == "true"
    (metric,) = component["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert (metric["type"], metric["value"]) == ("accuracy", f"{439 / 450:.4f}")
    assert metric["confidenceInterval"] == {"lowerBound": "0.9500", "upperBound": "0.9800"}


def test_weights_alone_have_no_accuracy(made):
    component = made("weights")["metadata"]["component"]
    assert component["modelCard"]["quantitativeAnalysis"]["performanceMetrics"] == []
    assert properties(component)["d3fast:flaggedBy"] == "head-norm"


def test_a_repaired_model_has_the_suspect_as_ancestor(made):
    component = made("inspect", "card")["metadata"]["component"]
    assert component["hashes"][0]["content"] == REPAIRED_SHA
    assert properties(component)["d3fast:suspicious"] == "false"
    (ancestor,) = component["pedigree"]["ancestors"]
    assert ancestor["hashes"][0]["content"] == SUSPECT_SHA


def test_the_same_weights_have_the_same_serial_number(made):
    assert made("inspect")["serialNumber"] == made("inspect")["serialNumber"]
    assert made("inspect")["serialNumber"] != made("inspect", "card")["serialNumber"]


def test_a_p_value_names_its_calibration(made, tmp_path):
    made("inspect")
    edit(tmp_path / "inspect.json", calibrate)
    audit = read_audit(tmp_path)
    found = properties(bom(facts_of(audit), None)["metadata"]["component"])
    assert (found["d3fast:pValue"], found["d3fast:falseAlarmRate"]) == ("0.04", "0.05")
    assert found["d3fast:calibration:sha256"] == 64 * "d"
    assert found["d3fast:calibration:cleanModels"] == "49"
