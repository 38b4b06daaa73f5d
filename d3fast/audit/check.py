# SPDX-License-Identifier: Apache-2.0
"""The step of an audit that looks at the suspect: an inspection and its document inspect.json."""

from dataclasses import asdict

from torch import nn

from d3fast.audit.inspect import Inspection, InspectOptions, inspect_model
from d3fast.audit.inspect_text import TextInspection
from d3fast.audit.resolve import Audit
from d3fast.hub import TextInput
from d3fast.results.store import Results


def inspect_audit(
    audit: Audit,
    options: InspectOptions | None = None,
    *,
    model: nn.Module | None = None,
    progress: bool = True,
) -> Inspection | TextInspection:
    """Run the detectors on the suspect of an audit, or on its repaired copy.

    Args:
        audit: the suspect and its clean samples.
        options: ``InspectOptions()`` if ``None``.
        model: the repaired copy; the suspect if ``None``.
        progress: show progress bars.

    Raises:
        ValueError: what ``inspect_model`` raises.
    """
    given = audit.suspect.input
    return inspect_model(
        audit.model if model is None else model,
        audit.data,
        options=options,
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
    command = (
        f"d3fast inspect --model {audit.spec} --steps {options.inversion.steps} "
        f"--detectors {','.join(result.name for result in found.results)} --rate {options.rate:g} "
        f"--samples {options.samples} --seed {audit.seed}"
    )
    used = options if isinstance(found, Inspection) else options.for_texts()
    settings = {**audit.settings(), "options": asdict(used)}
    return Results(command, settings, found.rows(sha256=audit.sha256))
