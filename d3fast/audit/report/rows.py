# SPDX-License-Identifier: Apache-2.0
"""The rows of a case that describe no single model: a repair, a pilot, a spectrum, all checked.

Each reader gives rows or records that hold nothing but what it has looked at: numbers are finite
numbers, texts printable and short, lists bounded. Figures and tables are made from these alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from d3fast.results.rows import (
    digest,
    flag,
    integer,
    listed,
    maybe,
    number,
    numbers,
    of_kind,
    only,
    text,
)

Row = Mapping[str, Any]

_NAME = 60  # characters of a model, a parameter, a loss
_LAYER = 80
_MOST_NODES = 20_000  # a density takes a bump for each
_MOST = 1e12  # what a figure can show and nothing measured exceeds


@dataclass(frozen=True)
class Repair:
    """How a model was repaired, as card.json says it.

    Attributes:
        preset: of the options.
        allowed: accuracy that it might cost, in points; ``None`` where no limit was stated.
        drop: accuracy that it cost on held-out samples, in points, with its interval.
        kept: whether the drop is within what was allowed, by the card's word and by its numbers.
        epochs: passes over the clean samples, and how many of them at the end had no push.
        stopped: why it ended.
        seconds: how long it took.
        clean_weight: lambda in the end.
        distance: of the tracked weights, as the optimizer has it.
        input_sha256: of the suspect's file.
        output_sha256: of the repaired file.
        output: name of the repaired file, no path.
        samples: clean samples that it was made with, and those held out.
    """

    preset: str
    allowed: float | None
    drop: tuple[float, float, float]
    kept: bool
    epochs: tuple[int, int]
    stopped: str
    seconds: float
    clean_weight: float
    distance: float | None
    input_sha256: str
    output_sha256: str
    output: str
    samples: tuple[int, int]


@dataclass(frozen=True)
class Way:
    """How far the weights went.

    Attributes:
        layers: name and relative distance of each, in the model's order; ``None`` where a layer
            started at 0.
        total: of all weights as one vector, relative; ``None`` likewise.
    """

    layers: tuple[tuple[str, float | None], ...]
    total: float | None


def _file_name(row: Row, key: str) -> str:
    name = text(row, key, 120)
    if PurePath(name).name != name or "/" in name or "\\" in name or name in ("", ".."):
        raise ValueError(f"{row['kind']} row: {key} must be the name of a file, got {name!r}")
    return name


def repair(rows: Sequence[Row]) -> Repair | None:
    """What the one row of kind ``repair`` says, or ``None`` if there is none.

    Raises:
        ValueError: more than one, or a field that cannot be.
    """
    row = only(rows, "repair")
    if row is None:
        return None
    allowed = maybe(number, row, "max_acc_drop", low=0, high=100)
    low, drop, high = (number(row, f"acc_drop{end}", -100, 100) for end in ("_low", "", "_high"))
    count = integer(row, "epochs")
    if not low - 1e-6 <= drop <= high + 1e-6:
        raise ValueError("repair row: acc_drop must lie in its interval")
    return Repair(
        preset=text(row, "preset", _NAME),
        allowed=allowed,
        drop=(drop, low, high),
        kept=flag(row, "kept") and (allowed is None or drop <= allowed + 1e-6),
        epochs=(count, maybe(integer, row, "recovery_epochs", high=count) or 0),
        stopped=text(row, "stopped", 200),
        seconds=number(row, "seconds", 0, _MOST),
        clean_weight=number(row, "clean_weight", 0, _MOST),
        distance=maybe(number, row, "distance", low=0, high=_MOST),
        input_sha256=digest(row, "input_sha256"),
        output_sha256=digest(row, "output_sha256"),
        output=_file_name(row, "output"),
        samples=(integer(row, "repair_samples"), integer(row, "held_out_samples")),
    )


def epochs(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows of kind ``epoch`` in their order.

    Raises:
        ValueError: a field that cannot be.
    """
    return [
        {
            "epoch": integer(row, "epoch", 1),
            "loss": number(row, "loss", -_MOST, _MOST),
            "accuracy": number(row, "accuracy", 0, 1),
            "val_accuracy": maybe(number, row, "val_accuracy", low=0, high=1),
            "distance": maybe(number, row, "distance", low=0, high=_MOST),
            "clean_weight": maybe(number, row, "clean_weight", low=0, high=_MOST),
        }
        for row in of_kind(rows, "epoch", 20_000)
    ]


def _layer(layer: Any) -> dict[str, Any]:
    if not isinstance(layer, Mapping):
        raise ValueError("distance row: a layer that is no mapping")
    row = {**layer, "kind": "distance"}
    return {
        "name": text(row, "name", _LAYER),
        "relative": maybe(number, row, "relative", low=0, high=_MOST),
    }


def way(rows: Sequence[Row]) -> Way | None:
    """What the one row of kind ``distance`` says, or ``None`` if there is none.

    Raises:
        ValueError: more than one, or a field that cannot be.
    """
    row = only(rows, "distance")
    if row is None:
        return None
    layers = [_layer(layer) for layer in listed(row, "layers", 20_000)]
    total = None if row.get("total") is None else _layer(row["total"])["relative"]
    return Way(tuple((layer["name"], layer["relative"]) for layer in layers), total)


def _share(row: Row, key: str) -> float | None:
    return maybe(number, row, key, low=0, high=1)


def _weights(row: Row) -> dict[str, float]:
    keys = ("distance_weight", "clean_weight", "epsilon")
    return {key: number(row, key, 0, _MOST) for key in keys}


def _trial(row: Row) -> dict[str, Any]:
    samples = integer(row, "samples", 1)
    return {
        "kind": "trial",
        "trial": integer(row, "trial"),
        "rung": integer(row, "rung"),
        "epochs": integer(row, "epochs"),
        "pareto": flag(row, "pareto"),
        **_weights(row),
        "samples": samples,
        "correct": integer(row, "correct", 0, samples),
        **{key: number(row, key, 0, 1) for key in ("acc", "acc_low", "acc_high")},
        "inversion_asr": _share(row, "inversion_asr"),
        "asr": _share(row, "asr"),
        "distance": maybe(number, row, "distance", low=0, high=_MOST),
        "seconds": number(row, "seconds", 0, _MOST),
    }


def _shares(row: Row, key: str, length: int) -> list[float | None]:
    found = listed(row, key, 1000)
    if len(found) != length:
        raise ValueError(f"sensitivity row: {key} must have {length} entries, one per value")
    return [_share({"kind": "sensitivity", key: value}, key) for value in found]


def _sensitivity(row: Row) -> dict[str, Any]:
    values = list(numbers(row, "values", -_MOST, _MOST))
    if len(values) > 50:
        raise ValueError(f"sensitivity row: values must be at most 50, got {len(values)}")
    return {
        "kind": "sensitivity",
        "parameter": text(row, "parameter", _NAME),
        "values": values,
        "acc": _shares(row, "acc", len(values)),
        "inversion_asr": _shares(row, "inversion_asr", len(values)),
        "acc_range": _share(row, "acc_range"),
        "asr_range": _share(row, "asr_range"),
    }


def _recommendation(row: Row) -> dict[str, Any]:
    return {
        "kind": "recommendation",
        "trial": integer(row, "trial"),
        "why": text(row, "why"),
        **_weights(row),
    }


def _untouched(row: Row) -> dict[str, Any]:
    return {"kind": "suspect", **{key: _share(row, key) for key in ("acc", "inversion_asr", "asr")}}


def pilot_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows of pilot.json.

    Raises:
        ValueError: a field that cannot be; no trial.
    """
    readers: Mapping[str, tuple[Callable[[Row], dict[str, Any]], int]] = {
        "trial": (_trial, 1000),
        "sensitivity": (_sensitivity, 8),
        "recommendation": (_recommendation, 1),
        "suspect": (_untouched, 1),
    }
    found = [
        read(row) for kind, (read, most) in readers.items() for row in of_kind(rows, kind, most)
    ]
    if not any(row["kind"] == "trial" for row in found):
        raise ValueError("holds no trial")
    return found


def _grid(row: Row, key: str, low: float) -> list[list[float]]:
    """A list of lists of numbers, all of one length."""
    lines = [
        list(numbers({"kind": "spectrum", key: line}, key, low, _MOST))
        for line in listed(row, key, 1000)
    ]
    if not lines or not lines[0] or len({len(line) for line in lines}) > 1:
        raise ValueError(f"spectrum row: {key} must be lists of numbers of one length")
    if len(lines) * len(lines[0]) > _MOST_NODES:
        raise ValueError(f"spectrum row: {key} must be at most {_MOST_NODES} numbers")
    return lines


def _spectrum(row: Row) -> dict[str, Any]:
    nodes, weights = _grid(row, "nodes", -_MOST), _grid(row, "weights", 0)
    if (len(nodes), len(nodes[0])) != (len(weights), len(weights[0])):
        raise ValueError("spectrum row: nodes and weights must have the same shape")
    eigenvalues = list(numbers(row, "eigenvalues", -_MOST, _MOST))
    residuals = list(numbers(row, "residuals", 0, _MOST))
    if not 0 < len(eigenvalues) == len(residuals) <= 1000:
        raise ValueError("spectrum row: eigenvalues must be 1 to 1000, with as many residuals")
    return {
        "kind": "spectrum",
        "model": text(row, "model", _NAME),
        "loss": text(row, "loss", _NAME),
        "value": maybe(number, row, "value"),
        "size": integer(row, "size", 1),
        "eigenvalues": eigenvalues,
        "residuals": residuals,
        "converged": flag(row, "converged"),
        "trace": number(row, "trace"),
        "trace_error": maybe(number, row, "trace_error", low=0),
        "nodes": nodes,
        "weights": weights,
    }


def _scored(row: Row) -> dict[str, Any]:
    return {
        "kind": "model",
        "model": text(row, "model", _NAME),
        "acc": _share(row, "acc"),
        "asr": _share(row, "asr"),
    }


def spectrum_rows(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows of spectrum.json that the page shows: models and their spectra.

    Raises:
        ValueError: a field that cannot be; spectra that are not one per model and loss.
    """
    models = [_scored(row) for row in of_kind(rows, "model", 12)]
    spectra = [_spectrum(row) for row in of_kind(rows, "spectrum", 60)]
    names, losses = ([row["model"] for row in models], {row["loss"] for row in spectra})
    if len(set(names)) < len(names):
        raise ValueError("two model rows have the same name")
    expected = sorted((name, loss) for name in names for loss in losses)
    if not expected or sorted((row["model"], row["loss"]) for row in spectra) != expected:
        raise ValueError("must hold one spectrum per model and loss")
    return [*models, *spectra]
