# SPDX-License-Identifier: Apache-2.0
"""What every machine-readable output says of an audit: the model, its detectors, the verdict."""

from collections.abc import Mapping
from dataclasses import dataclass

from d3fast.audit.report.folder import AuditDocuments
from d3fast.audit.resolve import CARD, INSPECTION, WEIGHTS
from d3fast.results.schema.audit import DetectorRow, VerdictRow
from d3fast.results.schema.document import Origin


@dataclass(frozen=True)
class Facts:
    """The suspect of an audit.

    Attributes:
        name: of its weight file or folder, without the path.
        spec: how a command line names it.
        sha256: of its weights.
        parameters: number of weights.
        origin: of the document that decides what the audit is about.
        detectors: results on the suspect, of the inspection or of a look at the weights.
        verdict: the conclusion; ``None`` where no detector ran.
    """

    name: str
    spec: str
    sha256: str
    parameters: int
    origin: Origin
    detectors: tuple[DetectorRow, ...]
    verdict: VerdictRow | None

    @property
    def suspicious(self) -> bool | None:
        """A detector flags the model; ``None`` where none ran."""
        return None if self.verdict is None else self.verdict.suspicious

    @property
    def text(self) -> str:
        """The verdict in sentences, or ``""``."""
        return "" if self.verdict is None else self.verdict.text


def facts_of(audit: AuditDocuments) -> Facts:
    """Collect the facts from the documents of an audit.

    Args:
        audit: of ``read_audit``.

    Raises:
        ValueError: no document describes the weights of a suspect.
    """
    report, scan = audit.before, audit.weights
    origin = _origin(audit.origins)
    if origin is None or (report is None and scan is None):
        raise ValueError("the audit has no inspection: run d3fast check or d3fast inspect")
    # Weights decide only where nothing was inspected: an inspection has detectors of its own.
    inspected = report is not None and report.verdict is not None
    chosen = report if inspected or scan is None else scan
    about = scan if report is None else report
    assert chosen is not None
    assert about is not None
    settings = origin.settings
    return Facts(
        name=settings.checkpoint or settings.model or "model",
        spec=settings.model or "",
        sha256=about.model.sha256,
        parameters=about.model.parameters,
        origin=origin,
        detectors=chosen.detectors,
        verdict=chosen.verdict,
    )


def _origin(origins: Mapping[str, Origin]) -> Origin | None:
    return next((origins[name] for name in (INSPECTION, CARD, WEIGHTS) if name in origins), None)
