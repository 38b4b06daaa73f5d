# SPDX-License-Identifier: Apache-2.0
"""Curvature report: all measurements of ``d3fast.spectrum`` for a suspect and its repairs.

One row per measurement, of five kinds: ``model`` (ACC, ASR, RA), ``spectrum`` (eigenvalues,
density, trace of one model's loss), ``path`` (losses on the line from the suspect through a
repair), ``prediction`` (the suspect's quadratic expansion at a repair) and ``distance`` (per
layer).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn
from torch.nn.functional import cross_entropy

from d3fast.data.base import ImageData
from d3fast.results.schema.audit import LayerDistance
from d3fast.results.schema.spectrum import (
    ModelDistances,
    PredictionRow,
    SpectrumModelRow,
    SpectrumRow,
)
from d3fast.runtime.checks import check_choice, check_integer, check_number
from d3fast.runtime.devices import resolve_device
from d3fast.runtime.progress import progress_bar
from d3fast.spectrum.curvature import KINDS, Curvature
from d3fast.spectrum.density import estimate_density
from d3fast.spectrum.directions import quadratic_prediction
from d3fast.spectrum.distances import distance_profile, total_distance
from d3fast.spectrum.eigenpairs import eigenpairs
from d3fast.spectrum.paths import TS, loss_path
from d3fast.spectrum.samples import Data, Difference, triggered_batches
from d3fast.training.metrics import Trigger, evaluate

CLEAN, BACKDOOR, DIFFERENCE = "clean", "backdoor", "difference"
LOSSES = (CLEAN, BACKDOOR, DIFFERENCE)
_BATCH = 250

Row = dict[str, Any]


@dataclass(frozen=True)
class CurvatureReportConfig:
    """Options of a curvature report.

    Attributes:
        losses: any of ``"clean"``, ``"backdoor"`` and ``"difference"`` (backdoor minus clean); the
            last two need an attack.
        params: tracked weights; see ``Curvature``.
        kind: ``"hessian"`` or ``"gauss-newton"``.
        k: number of eigenvalues.
        tol: relative tolerance of their residuals.
        probes: random vectors of the density, whose first moment gives the trace.
        steps: Lanczos steps per probe.
        ts: points of a path; 0 is the suspect, 1 the repair.
        seed: draws all random vectors.

    Raises:
        ValueError: an option out of range.

    Example:
        >>> CurvatureReportConfig(losses=("poison",))
        Traceback (most recent call last):
            ...
        ValueError: loss must be one of 'clean', 'backdoor', 'difference', got 'poison'
    """

    losses: tuple[str, ...] = (CLEAN, BACKDOOR)
    params: str = "all"
    kind: str = "hessian"
    k: int = 5
    tol: float = 1e-2
    probes: int = 3
    steps: int = 20
    ts: tuple[float, ...] = TS[::2]
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.losses:
            raise ValueError("losses must hold one or more, got none")
        for loss in self.losses:
            check_choice("loss", loss, LOSSES)
        check_choice("kind", self.kind, KINDS)
        check_number("tol", self.tol)
        for name in ("k", "probes", "steps"):
            check_integer(name, getattr(self, name), 1)
        check_integer("seed", self.seed, 0)


def curvature_report(
    models: Mapping[str, nn.Module],
    data: ImageData,
    attack: Trigger | None = None,
    *,
    config: CurvatureReportConfig | None = None,
    device: str | None = None,
    progress: bool = True,
) -> list[Row]:
    """Measure a suspect (the first model) and its repairs (the others).

    Args:
        models: models by name; they return (N, classes) scores and are not changed.
        data: clean samples.
        attack: the trigger, for backdoor loss and ASR.
        config: the options; ``CurvatureReportConfig()`` if ``None``.
        device: where to compute; the device of the suspect if ``None``.
        progress: show a progress bar.

    Returns:
        The rows, ready for JSON.

    Raises:
        ValueError: no model; see also the measurements.

    Example:
        >>> import torch
        >>> data = ImageData(torch.rand(8, 1, 2, 2), torch.arange(8) % 2, ("a", "b"))
        >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> config = CurvatureReportConfig(k=1)
        >>> rows = curvature_report({"suspect": net}, data, config=config, progress=False)
        >>> [row["kind"] for row in rows]
        ['model', 'spectrum']
    """
    if not models:
        raise ValueError("models must hold one or more, got none")
    config = config or CurvatureReportConfig()
    on = resolve_device(device, next(iter(models.values())))
    clean = list(data.to(on).batches(_BATCH))
    losses = _losses(clean, attack, len(data.classes), config)
    jobs = list(_jobs(models, clean, attack, losses, config))
    rows = []
    with progress_bar("spectrum", len(jobs), progress) as advance:
        for job in jobs:
            rows.append(job())
            advance("")
    return rows


def _losses(
    clean: Sequence[Any], attack: Trigger | None, classes: int, config: CurvatureReportConfig
) -> dict[str, Data]:
    if attack is None:
        if CLEAN not in config.losses:
            raise ValueError(f"{', '.join(config.losses)}: without a trigger there is clean alone")
        return {CLEAN: clean}
    triggered = triggered_batches(clean, attack, classes)
    every: dict[str, Data] = {
        CLEAN: clean,
        BACKDOOR: triggered,
        DIFFERENCE: Difference(triggered, clean),
    }
    return {name: every[name] for name in config.losses}


def _jobs(
    models: Mapping[str, nn.Module],
    clean: Sequence[Any],
    attack: Trigger | None,
    losses: Mapping[str, Data],
    config: CurvatureReportConfig,
) -> Iterator[Callable[[], Row]]:
    """Yield every measurement as a function that returns its row."""
    (_, suspect), *repairs = models.items()
    for name, model in models.items():
        yield partial(_rates, name, model, clean, attack)
        for title, samples in losses.items():
            yield partial(_spectrum, name, model, title, samples, config)
    for name, model in repairs:
        yield partial(_path, name, suspect, model, clean, attack, config)
        for title, samples in losses.items():
            yield partial(_prediction, name, suspect, model, title, samples, config)
        yield partial(_distance, name, suspect, model)


def _rates(name: str, model: nn.Module, clean: Sequence[Any], attack: Trigger | None) -> Row:
    metrics = evaluate(model, clean, attack, name="data")
    return SpectrumModelRow(model=name, **metrics.as_dict()).to_row()


def _spectrum(
    name: str, model: nn.Module, title: str, data: Data, config: CurvatureReportConfig
) -> Row:
    curvature = Curvature(model, cross_entropy, data, params=config.params, kind=config.kind)
    value, gradient = curvature.value_and_gradient()
    pairs = eigenpairs(curvature, config.k, tol=config.tol, seed=config.seed)
    spread = estimate_density(curvature, probes=config.probes, steps=config.steps, seed=config.seed)
    mean, size = spread.moment(1), curvature.size
    error = mean.standard_error
    return SpectrumRow(
        model=name,
        loss=title,
        value=value,
        gradient_norm=float(gradient.norm()),
        size=size,
        eigenvalues=tuple(pairs.values.tolist()),
        residuals=tuple(pairs.residuals.tolist()),
        converged=pairs.converged,
        trace=size * mean.value,
        trace_error=None if error is None else size * error,
        nodes=tuple(map(tuple, spread.nodes.tolist())),
        weights=tuple(map(tuple, spread.weights.tolist())),
        products=pairs.products + spread.nodes.numel(),
    ).to_row()


def _path(
    name: str,
    suspect: nn.Module,
    model: nn.Module,
    clean: Sequence[Any],
    attack: Trigger | None,
    config: CurvatureReportConfig,
) -> Row:
    path = loss_path(suspect, model, cross_entropy, clean, attack, ts=config.ts, progress=False)
    return {"kind": "path", "model": name, **path.as_dict()}


def _prediction(
    name: str,
    suspect: nn.Module,
    model: nn.Module,
    title: str,
    data: Data,
    config: CurvatureReportConfig,
) -> Row:
    found = quadratic_prediction(suspect, model, cross_entropy, data, params=config.params)
    return PredictionRow(model=name, loss=title, **found.as_dict()).to_row()


def _distance(name: str, suspect: nn.Module, model: nn.Module) -> Row:
    profile = distance_profile(suspect, model)
    return ModelDistances(
        model=name,
        layers=tuple(LayerDistance(**layer.as_dict()) for layer in profile),
        total=LayerDistance(**total_distance(profile).as_dict()),
    ).to_row()
