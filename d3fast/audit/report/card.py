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
from d3fast.detox import DetoxResult
from d3fast.hub.samples import Data
from d3fast.io.untrusted import printable
from d3fast.optim import find_head
from d3fast.results.format import count, fixed, percent, points, seconds, shortest
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
from d3fast.training.metrics import Metrics, Trigger, evaluate
from d3fast.training.paired import PairedAccuracy, unresolved

_BATCH = 256
_LINE = 2000  # characters: the text of an inspection may come from an untrusted file


def measured(model: nn.Module, samples: Data, trigger: Trigger | None = None) -> Metrics:
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


def repair_row(
    audit: Audit,
    result: DetoxResult,
    preset: str,
    searched: bool,
    pair: PairedAccuracy,
    limit: float | None,
    output: Mapping[str, str],
    sizes: tuple[int, int],
) -> RepairRow:
    """Return the row of a repair.

    Args:
        audit: the suspect.
        result: of ``detoxify``.
        preset: name of the options.
        searched: the number of blocks to restart was searched for.
        pair: both models on the held-out samples.
        limit: points of accuracy that may be lost.
        output: ``output``, the file's name, and ``output_sha256``.
        sizes: number of samples in the repair, and held out.
    """
    config = result.config
    asked, (low, high) = config.max_acc_drop, pair.interval
    ended = {"epochs": "all epochs", "settled": "accuracy and distance had settled"}
    return RepairRow(
        preset=preset,
        max_acc_drop=limit,
        asked_acc_drop=None if asked == limit else asked,
        acc_drop=pair.drop,
        acc_drop_low=low,
        acc_drop_high=high,
        lost=pair.lost,
        gained=pair.gained,
        kept=limit is None or pair.drop <= limit + 1e-9,
        epochs=len(result.history),
        recovery_epochs=len(result.history) - result.pushed,
        stopped=ended[result.ended],
        restarted_blocks=config.restart if isinstance(config.restart, int) else None,
        restart_searched=searched,
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
    return suspect_rows(found.rows)


def suspect_rows(rows: Rows) -> Rows:
    """Return those rows of inspect.json that card.json takes."""
    return [row for row in rows if row.get("kind") in ("inversion", "sign", "verdict")]


def card_lines(rows: Rows) -> list[str]:
    """Summarise the rows of card.json in a few sentences."""
    card = parse_card(rows)
    repair, before, after = card.repair, card.suspect.metrics, card.repaired.metrics
    held_out = repair.held_out_samples
    lines = [
        f"Accuracy on {held_out} held-out samples: {percent(before.acc)} % before, "
        f"{percent(after.acc)} % after: {_loss(repair)}."
    ]
    if before.asr is not None and after.asr is not None:
        rates = f"{percent(before.asr)} % before, {percent(after.asr)} % after"
        lifts = ""
        if before.lift is not None and after.lift is not None:  # older documents have none
            lifts = f"; lift {percent(before.lift)} and {percent(after.lift)} points"
        lines.append(f"ASR of the trigger: {rates}{lifts}.")
    if repair.max_acc_drop is not None:
        lines.append(_limit(repair, before))
    total = card.distances and card.distances.total
    recovery = f", {repair.recovery_epochs} of them recovery" if repair.recovery_epochs else ""
    lines.append(
        f"{repair.epochs} epochs ({repair.stopped}{recovery}), {seconds(repair.seconds)}"
        f"{_restart(repair)}; lambda {shortest(repair.clean_weight, 3)}; all weights moved "
        f"{fixed((total and total.relative) or 0.0, 2)} of their norm."
    )
    for role, report in (("suspect", card.suspect), ("repaired", card.repaired)):
        if report.verdict is not None:
            lines.append(f"Inspection, {role}: {report.verdict.text}")
    return lines


def _restart(repair: RepairRow) -> str:
    """Return a clause about the blocks that restarted."""
    blocks = repair.restarted_blocks
    if not blocks:
        searched = blocks is not None and repair.restart_searched
        return "; only the tracked weights restarted, accuracy allows no more" if searched else ""
    most = ", the most that accuracy allows" if repair.restart_searched else ""
    last = "last block" if blocks == 1 else f"last {count(blocks, 'block')}"
    return f"; {last} restarted{most}"


def _loss(repair: RepairRow) -> str:
    """Return the loss of accuracy with its interval, which is paired where the counts are known."""
    kind = counts = ""
    if repair.lost is not None and repair.gained is not None:
        kind, counts = "paired ", f"{repair.lost} samples lost, {repair.gained} gained; "
    change, of = f"{fixed(repair.acc_drop)} points lost", ""
    if repair.acc_drop < 0:
        change, of = f"{fixed(-repair.acc_drop)} points gained", " of the loss"
    return (
        f"{change} ({counts}{kind}95 % interval{of} "
        f"{fixed(repair.acc_drop_low)} to {fixed(repair.acc_drop_high)}; one sample is "
        f"{fixed(100 / repair.held_out_samples)} points)"
    )


def _limit(repair: RepairRow, before: Metrics) -> str:
    """Return whether the limit of accuracy was kept, and how the samples bear on it."""
    limit, held_out = repair.max_acc_drop or 0.0, repair.held_out_samples
    text = f"Limit of {points(limit)}: {'kept' if repair.within_limit else 'MISSED'}."
    if repair.lost is None or before.images != held_out:  # of an older release
        return text
    few = unresolved(before.correct, held_out)
    blurred = f"a loss of up to {few} of the {held_out} held-out samples cannot be told from none"
    if repair.asked_acc_drop is not None:
        return f"{text} The usual limit of {points(repair.asked_acc_drop)} was raised: {blurred}."
    if 100 * few / held_out > limit:
        return f"{text} It is finer than the samples resolve: {blurred}. Give more clean samples."
    return text


def print_card(rows: Rows, console: Console) -> None:
    """Print the summary of card.json."""
    for line in card_lines(rows):
        console.print(printable(line, _LINE), highlight=False, markup=False)
