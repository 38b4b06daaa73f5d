# SPDX-License-Identifier: Apache-2.0
"""An audit as a machine-learning bill of materials: CycloneDX 1.6 in JSON.

The component is the suspect, or the repaired model with the suspect as its ancestor. Its model card
holds the accuracy with its interval and the limits of the verdict.
"""

import uuid
from typing import Any

from d3fast.audit.report.documents import Card
from d3fast.audit.report.facts import Facts
from d3fast.results.schema.audit import ModelRow, VerdictRow

SCHEMA = "http://cyclonedx.org/schema/bom-1.6.schema.json"
_LIMITS = (
    "Detectors that flag nothing do not prove that a model has no backdoor. Rates of d3fast's "
    "detectors are measured on small models: see its documentation."
)


def bom(facts: Facts, model: ModelRow | None, card: Card | None = None) -> dict[str, Any]:
    """Return the bill of materials of an audited model.

    Args:
        facts: of the suspect.
        model: the suspect's accuracy on clean samples, or ``None``.
        card: of a repair; the repaired model is then the component.
    """
    suspect = _component(facts.name, facts.sha256, facts.spec, model, _findings(facts))
    component = suspect
    if card is not None:
        repaired = card.repaired
        properties = [
            *_property("repair:preset", card.repair.preset),
            *_property("repair:epochs", card.repair.epochs),
            *_property("repair:accuracyPointsLost", card.repair.acc_drop),
            *_property("suspicious", repaired.suspicious),
            *_conclusion(repaired.verdict),
        ]
        component = _component(
            card.repair.output, card.repair.output_sha256, facts.spec, repaired.model, properties
        )
        component["pedigree"] = {
            "ancestors": [suspect],
            "notes": "Repaired by distance-driven detoxification (d3fast).",
        }
    version = facts.origin.versions.d3fast
    tool = {"type": "application", "name": "d3fast"}
    serial = uuid.uuid5(uuid.NAMESPACE_URL, f"d3fast:{component['hashes'][0]['content']}")
    return {
        "$schema": SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "timestamp": facts.origin.created,
            "tools": {"components": [tool if version is None else {**tool, "version": version}]},
            "component": component,
        },
        "components": [],
    }


def _findings(facts: Facts) -> list[dict[str, str]]:
    flagged = ", ".join(row.name for row in facts.detectors if row.flagged)
    ran = ", ".join(row.name for row in facts.detectors)
    return [
        *_property("parameters", facts.parameters),
        *_property("detectors", ran),
        *_property("flaggedBy", flagged),
        *_property("suspicious", facts.suspicious),
        *_conclusion(facts.verdict),
    ]


def _conclusion(verdict: VerdictRow | None) -> list[dict[str, str]]:
    """Return the verdict, its p-value and the calibration that gives it."""
    if verdict is None:
        return []
    return [
        *_property("verdict", verdict.text),
        *_property("pValue", verdict.p_value),
        *_property("falseAlarmRate", verdict.rate),
        *_property("calibration:sha256", verdict.calibration),
        *_property("calibration:cleanModels", verdict.clean_models),
    ]


def _property(name: str, value: Any) -> list[dict[str, str]]:
    if value is None or value == "":
        return []
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return [{"name": f"d3fast:{name}", "value": text}]


def _component(
    name: str, sha256: str, spec: str, model: ModelRow | None, properties: list[dict[str, str]]
) -> dict[str, Any]:
    return {
        "type": "machine-learning-model",
        "bom-ref": f"sha256:{sha256}",
        "name": name,
        "hashes": [{"alg": "SHA-256", "content": sha256}],
        "modelCard": {
            "modelParameters": {
                "task": "classification",
                **({"modelArchitecture": spec} if spec else {}),
            },
            "quantitativeAnalysis": {"performanceMetrics": _metrics(model)},
            "considerations": {"technicalLimitations": [_LIMITS]},
        },
        "properties": properties,
    }


def _metrics(model: ModelRow | None) -> list[dict[str, Any]]:
    if model is None:
        return []
    low, high = model.acc_interval or (None, None)
    bounds = {} if low is None else {"lowerBound": f"{low:.4f}", "upperBound": f"{high:.4f}"}
    metric = {
        "type": "accuracy",
        "value": f"{model.correct / model.images:.4f}",
        "slice": f"{model.images} clean samples",
    }
    return [{**metric, "confidenceInterval": bounds} if bounds else metric]
