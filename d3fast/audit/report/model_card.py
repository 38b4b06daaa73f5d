# SPDX-License-Identifier: Apache-2.0
"""The section of a Hugging Face model card about a repair, and its place in README.md.

The section stands between two marks; a second repair replaces it. Metadata of the card (YAML at its
beginning) is kept and gains a tag; without huggingface_hub it is kept as it is.
"""

import importlib.util
from pathlib import Path

from d3fast.audit.model_report import ModelReport
from d3fast.audit.report.documents import Card
from d3fast.audit.report.facts import Facts
from d3fast.io.files import atomic_write
from d3fast.io.untrusted import error_text, printable, read_limited
from d3fast.results.format import fixed, interval, percent, points, seconds
from d3fast.results.table import text_table, to_markdown

README = "README.md"
TAG = "backdoor-repair"
BEGIN, END = "<!-- d3fast: begin -->", "<!-- d3fast: end -->"
_MAX_BYTES = 2**20


def section(facts: Facts, card: Card) -> str:
    """Return the section about a repair in Markdown, between its marks.

    Args:
        facts: of the suspect.
        card: of the repair.
    """
    repair, before, after = card.repair, card.suspect, card.repaired
    lines = [
        [
            name,
            percent(report.metrics.acc, unit="%"),
            interval(*report.metrics.acc_interval),
            _flags(report),
            f"`{digest[:16]}…`",
        ]
        for name, report, digest in (
            ("before", before, repair.input_sha256),
            ("after", after, repair.output_sha256),
        )
    ]
    table = to_markdown(
        text_table(("", "accuracy", "95 % interval", "flagged by", "SHA-256 of the weights"), lines)
    )
    version = facts.origin.versions.d3fast or "unknown version"
    lost = (
        f"{points(repair.acc_drop)} of accuracy lost (95 % interval "
        f"{fixed(repair.acc_drop_low)} to {points(repair.acc_drop_high)})"
    )
    return f"""{BEGIN}
## Backdoor repair

The weights were repaired by distance-driven detoxification (D3, arXiv 2411.09585) with d3fast \
{version}: training on {repair.repair_samples} clean samples moved the weights away from those of \
the model that was received, to remove a possible backdoor. Configuration, tokenizer and labels \
are unchanged.

{table}

Accuracy is measured on {repair.held_out_samples} held-out samples: {lost}. Settings: preset \
`{repair.preset}`, {repair.epochs} epochs, {seconds(repair.seconds)}.

{_verdict(after)} Detectors that flag nothing do not prove that a model has no backdoor.
{END}"""


def _flags(report: ModelReport) -> str:
    if not report.detectors:
        return "not inspected"
    names = [row.name for row in report.flagged]
    return ", ".join(names) or f"none of {len(report.detectors)} detectors"


def _verdict(report: ModelReport) -> str:
    return "" if report.verdict is None else f"Inspection after the repair: {report.verdict.text}"


def with_section(text: str, new: str) -> str:
    """Return a model card with the section about the repair; metadata stays, and gains a tag.

    Args:
        text: of README.md, or ``""``; it may be a stranger's.
        new: of ``section``.

    Raises:
        ValueError: metadata that cannot be read.
    """
    start, end = text.find(BEGIN), text.find(END)
    if 0 <= start < end:
        text = f"{text[:start]}{new}{text[end + len(END) :]}"
    else:
        text = f"{text.rstrip()}\n\n{new}\n" if text.strip() else f"{new}\n"
    return _tagged(text)


def _tagged(text: str) -> str:
    if not text.startswith(("---\n", "---\r\n")):  # huggingface_hub logs that metadata is missing
        return f"---\ntags:\n- {TAG}\n---\n{text}"
    if importlib.util.find_spec("huggingface_hub") is None:
        return text
    from huggingface_hub import ModelCard

    try:
        card = ModelCard(text, ignore_metadata_errors=False)
    except Exception as error:  # yaml raises errors of its own
        raise ValueError(
            f"{README} has metadata that cannot be read: {error_text(error)}"
        ) from None
    tags = [tag for tag in (card.data.tags or []) if isinstance(tag, str)]
    card.data.tags = [*tags, *([] if TAG in tags else [TAG])]
    return str(card)


def write_section(folder: Path, facts: Facts, card: Card) -> Path:
    """Write the section into README.md of a repaired folder, by an atomic write.

    Args:
        folder: the repaired model in the layout of a hub.
        facts: of the suspect.
        card: of the repair.

    Raises:
        ValueError: a README.md of more than 1 MiB, that is not UTF-8, or with metadata that cannot
            be read.
    """
    path = folder / README
    old = ""
    if path.exists():
        try:
            old = read_limited(path, _MAX_BYTES).decode("utf-8")
        except UnicodeDecodeError:
            raise ValueError(f"{printable(path.name)} is not UTF-8") from None
    text = with_section(old, section(facts, card))
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path
