# SPDX-License-Identifier: Apache-2.0
"""The steps of an audit that look at the suspect: a scan of its weights, and an inspection."""

from dataclasses import asdict

from torch import nn

from d3fast.audit.calibration import Calibration
from d3fast.audit.detectors.registry import DETECTORS
from d3fast.audit.inspect import Inspection, InspectOptions, inspect_model
from d3fast.audit.inspect_text import TextInspection
from d3fast.audit.resolve import Audit
from d3fast.audit.weights import scan_weights
from d3fast.hub import TextInput
from d3fast.results.store import Results


def scan_document(audit: Audit, calibration: Calibration | None = None) -> Results | None:
    """Return weights.json, of the detectors that read the weights alone.

    Args:
        audit: the suspect.
        calibration: see ``scan_weights``.

    Returns:
        ``None`` for a model without a head that has one row per class.
    """
    try:
        scan = scan_weights(audit.model, audit.data.classes, calibration=calibration)
    except ValueError:
        return None
    command = f"d3fast check {audit.spec}"
    return Results(command, audit.settings(), scan.rows(sha256=audit.sha256))


def inspect_audit(
    audit: Audit,
    options: InspectOptions | None = None,
    *,
    model: nn.Module | None = None,
    calibration: Calibration | None = None,
    progress: bool = True,
) -> Inspection | TextInspection:
    """Run the detectors on the suspect of an audit, or on its repaired copy.

    Args:
        audit: the suspect and its clean samples.
        options: ``InspectOptions()`` if ``None``.
        model: the repaired copy; the suspect if ``None``.
        calibration: see ``inspect_model``; none of the package is used for the repaired copy.
        progress: show progress bars.

    Raises:
        ValueError: what ``inspect_model`` raises.
    """
    given = audit.suspect.input
    return inspect_model(
        audit.model if model is None else model,
        audit.data,
        options=options,
        calibration=calibration,
        repaired=model is not None and model is not audit.model,
        tokenizer=given.tokenizer if isinstance(given, TextInput) else None,
        seed=audit.seed,
        progress=progress,
    )


def inspection_document(
    audit: Audit, found: Inspection | TextInspection, options: InspectOptions
) -> Results:
    """Return inspect.json.

    Args:
        audit: the suspect.
        found: of ``inspect_audit``.
        options: of the inspection.
    """
    names = options.detectors or tuple(result.name for result in found.results)
    command = (
        f"d3fast inspect --model {audit.spec} --steps {options.inversion.steps} "
        f"--detectors {','.join(names)} --rate {options.rate:g} "
        f"--samples {options.samples} --seed {audit.seed}"
    )
    used = options if isinstance(found, Inspection) else options.for_texts()
    settings = {**audit.settings(), "options": asdict(used)}
    if isinstance(found, Inspection) and (plugins := DETECTORS.origins(*names)):
        settings["plugins"] = plugins
    return Results(command, settings, found.rows(sha256=audit.sha256))
