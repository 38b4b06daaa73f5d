# SPDX-License-Identifier: Apache-2.0
"""What ``d3fast detox`` prints and leaves behind: the card of a repair, as JSON.

The rows of a card: a model before and after on held-out samples, what ``d3fast inspect`` finds in
both, the repair itself, its epochs, and how far every layer went.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from d3fast.audit.findings import SUSPECT, findings
from d3fast.audit.resolve import Audit
from d3fast.data import ImageData
from d3fast.detox import DetoxResult
from d3fast.io.untrusted import printable
from d3fast.optim import find_head
from d3fast.results.format import fixed, percent, seconds, shortest
from d3fast.results.store import read_results
from d3fast.spectrum import distance_profile, total_distance
from d3fast.training.metrics import Metrics, Trigger, difference_interval, evaluate

Row = Mapping[str, Any]

_BATCH = 256
_LINE = 2000  # characters: an inspection's words may be from a stranger's file


def measured(model: nn.Module, samples: ImageData, trigger: Trigger | None = None) -> Metrics:
    """Accuracy on samples, and ASR where a trigger is known."""
    return evaluate(model, samples.batches(_BATCH), trigger, name="the clean samples")


def _head_name(model: nn.Module) -> str | None:
    try:
        return find_head(model)[0]
    except ValueError:
        return None


def model_row(role: str, model: nn.Module, found: Metrics, sha256: str) -> dict[str, Any]:
    """One model on the held-out samples."""
    return {
        "kind": "model",
        "role": role,
        "sha256": sha256,
        "parameters": sum(p.numel() for p in model.parameters()),
        "head": _head_name(model),
        **found.as_dict(),
    }


def lost_points(before: Metrics, after: Metrics) -> tuple[float, float, float]:
    """Points of accuracy that were lost, and the ends of the 95 % interval of that.

    Example:
        >>> before, after = (Metrics(n, 100) for n in (95, 93))
        >>> [round(points, 1) for points in lost_points(before, after)]
        [2.0, -5.1, 9.3]
    """
    low, high = difference_interval(before.correct, before.images, after.correct, after.images)
    return 100 * (before.acc - after.acc), 100 * low, 100 * high


def repair_row(
    case: Audit,
    result: DetoxResult,
    preset: str,
    drop: tuple[float, float, float],
    output: Mapping[str, str],
    sizes: tuple[int, int],
) -> dict[str, Any]:
    """What was done.

    Args:
        case: the suspect.
        result: of ``detoxify``.
        preset: name of the choices it started from.
        drop: of ``lost_points``.
        output: ``output``, the file's name, and ``output_sha256``.
        sizes: number of samples it was repaired with, and held out.
    """
    config = result.config
    limit, recovered = config.max_acc_drop, len(result.history) - result.pushed
    why = {"epochs": "all epochs", "settled": "accuracy and distance had settled"}[result.ended]
    return {
        "kind": "repair",
        "preset": preset,
        "max_acc_drop": limit,
        "acc_drop": drop[0],
        "acc_drop_low": drop[1],
        "acc_drop_high": drop[2],
        "kept": limit is None or drop[0] <= limit,
        "epochs": len(result.history),
        "recovery_epochs": recovered,
        "stopped": why,
        "seconds": result.seconds,
        "clean_weight": result.clean_weights[-1] if result.clean_weights else config.clean_weight,
        "distance": result.history[-1].distance if result.history else None,
        "input_sha256": case.sha256,
        **output,
        "repair_samples": sizes[0],
        "held_out_samples": sizes[1],
    }


def epoch_rows(result: DetoxResult) -> list[dict[str, Any]]:
    """One row per epoch; lambda is ``None`` in the recovery, which has no push."""
    weights = [*result.clean_weights, *[None] * (len(result.history) - len(result.clean_weights))]
    return [
        {"kind": "epoch", **epoch.as_dict(), "clean_weight": weight}
        for epoch, weight in zip(result.history, weights, strict=True)
    ]


def distance_row(start: nn.Module, end: nn.Module) -> dict[str, Any]:
    """How far every layer went."""
    profile = distance_profile(start, end)
    return {
        "kind": "distance",
        "layers": [layer.as_dict() for layer in profile],
        "total": total_distance(profile).as_dict(),
    }


def inspected_before(path: Path, settings: Mapping[str, Any]) -> list[Row]:
    """What an earlier inspection found, if it was one of the same model, samples and seed.

    Args:
        path: of inspect.json; it need not be there.
        settings: of the case.

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
        findings(found.rows, SUSPECT)  # whoever wrote it, it goes into the card as it is
    except ValueError as error:
        raise ValueError(f"{printable(path.name)}: {error}") from None
    return [row for row in found.rows if row.get("kind") in ("inversion", "sign", "verdict")]


def _one(rows: Sequence[Row], **wanted: Any) -> Row:
    return next(row for row in rows if wanted.items() <= row.items())


def card_lines(rows: Sequence[Row]) -> list[str]:
    """The card in a few sentences."""
    repair = _one(rows, kind="repair")
    before, after = (_one(rows, kind="model", role=role) for role in ("suspect", "repaired"))
    held, limit = repair["held_out_samples"], repair["max_acc_drop"]
    lines = [
        f"Accuracy on {held} held-out samples: {percent(before['acc'])} % before, "
        f"{percent(after['acc'])} % after: {fixed(repair['acc_drop'])} points lost "
        f"(95 % interval {fixed(repair['acc_drop_low'])} to {fixed(repair['acc_drop_high'])}; "
        f"one sample is {fixed(100 / held)} points)."
    ]
    if before["asr"] is not None:
        lines.append(
            f"ASR of the trigger: {percent(before['asr'])} % before, "
            f"{percent(after['asr'])} % after."
        )
    if limit is not None:
        word = "kept" if repair["kept"] else "MISSED"
        lines.append(f"Limit of {shortest(limit)} points: {word}.")
    distance = _one(rows, kind="distance")["total"]["relative"]
    lines.append(
        f"{repair['epochs']} epochs ({repair['stopped']}"
        + (f", {repair['recovery_epochs']} of them recovery" if repair["recovery_epochs"] else "")
        + f"), {seconds(repair['seconds'])}; lambda {shortest(repair['clean_weight'], 3)}; "
        "all weights moved "
        f"{fixed(distance or 0.0, 2)} of their norm."
    )
    for role in ("suspect", "repaired"):
        found = [row for row in rows if row["kind"] == "verdict" and row.get("role") == role]
        lines += [f"Inspection, {role}: {row['text']}" for row in found]
    return lines


def print_card(rows: Sequence[Row], console: Console) -> None:
    """Print the card's sentences."""
    for line in card_lines(rows):
        console.print(printable(line, _LINE), highlight=False, markup=False)
