"""SARIF: what the schema requires, one result per flagging detector, no local path."""

import json

import pytest

from d3fast.audit.report.facts import facts_of
from d3fast.audit.report.folder import read_audit
from d3fast.audit.report.sarif import sarif
from tests.audit.report.documents import OTHER_SHA, SUSPECT_SHA, calibrate, change, edit, write


@pytest.fixture
def log(tmp_path):
    write(tmp_path, "weights")
    return lambda location=None: sarif(facts_of(read_audit(tmp_path)), location)


def test_it_has_what_the_schema_requires(log):
    document = log()
    assert document["version"] == "2.1.0"
    (run,) = document["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"] == "d3fast"
    assert all(rule["id"] for rule in driver["rules"])
    for result in run["results"]:
        assert result["message"]["text"]
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    assert all(isinstance(each["executionSuccessful"], bool) for each in run["invocations"])
    assert run["invocations"][0]["endTimeUtc"].endswith("Z")


def test_every_detector_is_a_rule_and_those_that_flag_are_results(log):
    (run,) = log()["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert rules == ["backdoor/head", "backdoor/head-norm"]
    (result,) = run["results"]
    assert (result["ruleId"], result["level"]) == ("backdoor/head-norm", "warning")
    assert result["properties"] == {"score": 9.5, "threshold": 5.9, "targetClass": 3}
    assert "Score 9.5, threshold 5.9" in result["message"]["text"]


def test_a_fingerprint_is_that_of_the_same_finding_on_the_same_weights(tmp_path, log):
    first = log()["runs"][0]["results"][0]["partialFingerprints"]
    path = write(tmp_path, "weights")  # later, with another time
    assert log()["runs"][0]["results"][0]["partialFingerprints"] == first
    edit(path, change("scan", sha256=OTHER_SHA))
    edit(path, lambda document: document["settings"].update(sha256=OTHER_SHA))
    assert log()["runs"][0]["results"][0]["partialFingerprints"] != first


def test_locations_are_relative_and_escaped(log, tmp_path):
    assert str(tmp_path) not in json.dumps(log())
    (run,) = log("models/my model")["runs"]
    (artifact,) = run["artifacts"]
    assert artifact["location"]["uri"] == "models/my%20model"
    assert artifact["hashes"] == {"sha-256": SUSPECT_SHA}
    place = run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]
    assert place == {"uri": "models/my%20model", "index": 0}


def test_a_model_that_nothing_flags_has_no_results(tmp_path, log):
    path = write(tmp_path, "weights")
    edit(path, lambda d: [row.update(raised=False) for row in d["rows"] if row["kind"] == "sign"])
    (run,) = log()["runs"]
    assert run["results"] == []
    assert len(run["tool"]["driver"]["rules"]) == 2


def test_p_values_name_their_calibration(tmp_path, log):
    edit(write(tmp_path, "weights"), calibrate)
    (run,) = log()["runs"]
    properties = run["results"][0]["properties"]
    assert (properties["pValue"], properties["adjustedPValue"]) == (0.02, 0.04)
    whole = run["properties"]
    assert (whole["pValue"], whole["falseAlarmRate"], whole["cleanModels"]) == (0.04, 0.05, 49)
    assert whole["calibrationSha256"] == 64 * "d"
