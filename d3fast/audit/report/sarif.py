# SPDX-License-Identifier: Apache-2.0
"""An audit as SARIF 2.1.0, the format that code-scanning services read.

One run, one rule per detector, one result per detector that flags the model. Detectors that do not
flag it give no result: services show every result as an alert. A fingerprint depends on the
weights, the detector and the class, so that the same finding is recognised in the next run.
"""

import hashlib
from typing import Any
from urllib.parse import quote

from d3fast.audit.report.facts import Facts
from d3fast.results.format import shortest
from d3fast.results.schema.audit import DetectorRow

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
PAPER = "https://arxiv.org/abs/2411.09585"
_HELP = (
    "A flag is no proof. Inspect the model with more clean samples (d3fast check), repair it "
    "(d3fast repair), or ask its author. d3fast's documentation gives the rates of each detector."
)


def sarif(facts: Facts, location: str | None = None) -> dict[str, Any]:
    """Return the SARIF log of an audit.

    Args:
        facts: of the suspect.
        location: relative path of the model in the repository, with forward slashes; the name of
            the model if ``None``.
    """
    names = [row.name for row in facts.detectors]
    where = quote(facts.name if location is None else location)
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": _driver(facts)},
                "automationDetails": {"id": f"d3fast/{quote(facts.name)}/"},
                "invocations": [
                    {
                        "executionSuccessful": True,
                        "commandLine": facts.origin.command,
                        "endTimeUtc": facts.origin.created.replace("+00:00", "Z"),
                    }
                ],
                "artifacts": [
                    {
                        "location": {"uri": where},
                        "roles": ["analysisTarget"],
                        "hashes": {"sha-256": facts.sha256},
                    }
                ],
                "results": [
                    _result(facts, row, names.index(row.name), where)
                    for row in facts.detectors
                    if row.flagged
                ],
                "properties": {
                    "suspicious": facts.suspicious,
                    "verdict": facts.text,
                    "detectors": names,
                    **_calibration(facts),
                },
            }
        ],
    }


def _calibration(facts: Facts) -> dict[str, Any]:
    row = facts.verdict
    if row is None:
        return {}
    return _known(
        pValue=row.p_value,
        falseAlarmRate=row.rate,
        cleanModels=row.clean_models,
        calibrationSha256=row.calibration,
    )


def _known(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _driver(facts: Facts) -> dict[str, Any]:
    version = facts.origin.versions.d3fast
    return {
        "name": "d3fast",
        **({} if version is None else {"version": version}),
        "informationUri": PAPER,
        "rules": [_rule(row) for row in facts.detectors],
    }


def _rule(row: DetectorRow) -> dict[str, Any]:
    subject = row.meaning.partition(":")[0]
    return {
        "id": rule_id(row.name),
        "name": "".join(word.capitalize() for word in row.name.replace("-", " ").split()),
        "shortDescription": {"text": f"Possible backdoor by detector {row.name}"},
        "fullDescription": {"text": f"{subject}: one class is an outlier."},
        "help": {"text": _HELP},
        "defaultConfiguration": {"level": "warning"},
        "properties": {"tags": ["security", "backdoor"], "precision": "low"},
    }


def rule_id(detector: str) -> str:
    """Return the rule of a detector.

    Example:
        >>> rule_id("head-norm")
        'backdoor/head-norm'
    """
    return f"backdoor/{detector.replace(' ', '-')}"


def _result(facts: Facts, row: DetectorRow, rule: int, where: str) -> dict[str, Any]:
    score = "infinite" if row.value is None else shortest(row.value, 3)
    identity = f"{facts.sha256} {row.name} {row.target}"
    return {
        "ruleId": rule_id(row.name),
        "ruleIndex": rule,
        "level": "warning",
        "message": {
            "text": f"{row.meaning} Score {score}, threshold {shortest(row.threshold, 3)}. "
            f"{facts.text}"
        },
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": where, "index": 0}}}],
        "partialFingerprints": {"d3fast/v1": hashlib.sha256(identity.encode()).hexdigest()},
        "properties": {
            "score": row.value,
            "threshold": row.threshold,
            "targetClass": row.target,
            **_known(pValue=row.p_value, adjustedPValue=row.adjusted_p_value),
        },
    }
