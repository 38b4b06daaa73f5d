# SPDX-License-Identifier: Apache-2.0
"""Output of ``d3fast detox``: the rows of card.json, and its summary for the terminal.

card.json holds both models on held-out samples, the inspection of both, the repair, its epochs,
and the displacement of every layer.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from d3fast.audit.model_report import SUSPECT, parse_model_report
from d3fast.audit.report.documents import Rows, parse_card
from d3fast.audit.resolve import Audit
from d3fast.data import ImageData
from d3fast.detox import DetoxResult
from d3fast.io.untrusted import printable
from d3fast.optim import find_head
from d3fast.results.format import fixed, percent, seconds, shortest
from d3fast.results.schema.audit import (
    EpochRow,
    LayerDistance,
    LayerDistances,
    ModelRow,
    RepairRow,
    Role,
)
from d3fast.results.store import read_results
from d3fast.spectrum import distance_profile, total_distance
from d3fast.training.intervals import difference_interval
from d3fast.training.metrics import Metrics, Trigger, evaluate

_BATCH = 256
_LINE = 2000  # characters: the text of an inspection may come from an untrusted file


def measured(model: nn.Module, samples: ImageData, trigger: Trigger | None = None) -> Metrics:
    """Measure accuracy on samples, and ASR where a trigger is known."""
    return evaluate(model, samples.batches(_BATCH), trigger, name="the clean samples")


def _head_name(model: nn.Module) -> str | None:
    try:
        return find_head(model)[0]
    except ValueError:
        return None


def model_row(role: Role, model: nn.Module, metrics: Metrics, sha256: str) -> ModelRow:
    """Return the row of one model on the held-out samples."""
    return ModelRow(
        role=role,
        sha256=sha256,
        parameters=sum(p.numel() for p in model.parameters()),
        head=_head_name(model),
        **metrics.as_dict(),
    )


def lost_points(before: Metrics, after: Metrics) -> tuple[float, float, float]:
    """Return the points of accuracy lost, and the ends of their 95 % interval.

    Example:
        >>> before, after = (Metrics(n, 100) for n in (95, 93))
        >>> [round(points, 1) for points in lost_points(before, after)]
        [2.0, -5.1, 9.3]
    """
    low, high = difference_interval(before.correct, before.images, after.correct, after.images)
    return 100 * (before.acc - after.acc), 100 * low, 100 * high


def repair_row(
    audit: Audit,
    result: DetoxResult,
    preset: str,
    drop: tuple[float, float, float],
    output: Mapping[str, str],
    sizes: tuple[int, int],
) -> RepairRow:
    """Return the row of a repair.

    Args:
        audit: the suspect.
        result: of ``detoxify``.
        preset: name of the options.
        drop: of ``lost_points``.
        output: ``output``, the file's name, and ``output_sha256``.
        sizes: number of samples in the repair, and held out.
    """
    config = result.config
    limit = config.max_acc_drop
    ended = {"epochs": "all epochs", "settled": "accuracy and distance had settled"}
    return RepairRow(
        preset=preset,
        max_acc_drop=limit,
        acc_drop=drop[0],
        acc_drop_low=drop[1],
        acc_drop_high=drop[2],
        kept=limit is None or drop[0] <= limit,
        epochs=len(result.history),
        recovery_epochs=len(result.history) - result.pushed,
        stopped=ended[result.ended],
        seconds=result.seconds,
        clean_weight=result.clean_weights[-1] if result.clean_weights else config.clean_weight,
        distance=result.history[-1].distance if result.history else None,
        input_sha256=audit.sha256,
        **output,
        repair_samples=sizes[0],
        held_out_samples=sizes[1],
    )


def epoch_rows(result: DetoxResult) -> list[EpochRow]:
    """Return one row per epoch; lambda is ``None`` in recovery epochs."""
    weights = [*result.clean_weights, *[None] * (len(result.history) - len(result.clean_weights))]
    return [
        EpochRow(**epoch.as_dict(), clean_weight=weight)
        for epoch, weight in zip(result.history, weights, strict=True)
    ]


def distance_row(start: nn.Module, end: nn.Module) -> LayerDistances:
    """Return the displacement of every layer."""
    profile = distance_profile(start, end)
    return LayerDistances(
        layers=tuple(LayerDistance(**layer.as_dict()) for layer in profile),
        total=LayerDistance(**total_distance(profile).as_dict()),
    )


def inspected_before(path: Path, settings: Mapping[str, Any]) -> Rows:
    """Return the rows of an earlier inspection of the same model, samples and seed.

    Args:
        path: of inspect.json; it need not exist.
        settings: of the audit.

    Raises:
        ValueError: a damaged file.
    """
    if not path.is_file():
        return []
    found = read_results(path)
    known = ("sha256", "samples_sha256", "seed")
    if any(found.settings.get(key) != settings[key] for key in known):
        return []
    try:
        parse_model_report(found.rows, SUSPECT)  # card.json takes these rows as they are
    except ValueError as error:
        raise ValueError(f"{printable(path.name)}: {error}") from None
    return [row for row in found.rows if row.get("kind") in ("inversion", "sign", "verdict")]


def card_lines(rows: Rows) -> list[str]:
    """Summarise the rows of card.json in a few sentences."""
    card = parse_card(rows)
    repair, before, after = card.repair, card.suspect.metrics, card.repaired.metrics
    held_out = repair.held_out_samples
    lines = [
        f"Accuracy on {held_out} held-out samples: {percent(before.acc)} % before, "
        f"{percent(after.acc)} % after: {fixed(repair.acc_drop)} points lost "
        f"(95 % interval {fixed(repair.acc_drop_low)} to {fixed(repair.acc_drop_high)}; "
        f"one sample is {fixed(100 / held_out)} points)."
    ]
    if before.asr is not None and after.asr is not None:
        rates = f"{percent(before.asr)} % before, {percent(after.asr)} % after"
        lifts = ""
        if before.lift is not None and after.lift is not None:  # older documents have none
            lifts = f"; lift {percent(before.lift)} and {percent(after.lift)} points"
        lines.append(f"ASR of the trigger: {rates}{lifts}.")
    if repair.max_acc_drop is not None:
        word = "kept" if repair.kept else "MISSED"
        lines.append(f"Limit of {shortest(repair.max_acc_drop)} points: {word}.")
    total = card.distances and card.distances.total
    recovery = f", {repair.recovery_epochs} of them recovery" if repair.recovery_epochs else ""
    lines.append(
        f"{repair.epochs} epochs ({repair.stopped}{recovery}), {seconds(repair.seconds)}; "
        f"lambda {shortest(repair.clean_weight, 3)}; all weights moved "
        f"{fixed((total and total.relative) or 0.0, 2)} of their norm."
    )
    for role, report in (("suspect", card.suspect), ("repaired", card.repaired)):
        if report.verdict is not None:
            lines.append(f"Inspection, {role}: {report.verdict.text}")
    return lines


def print_card(rows: Rows, console: Console) -> None:
    """Print the summary of card.json."""
    for line in card_lines(rows):
        console.print(printable(line, _LINE), highlight=False, markup=False)
