# SPDX-License-Identifier: Apache-2.0
"""The checked content of card.json, pilot.json, spectrum.json and weights.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from d3fast.audit.model_report import (
    MAX_DETECTORS,
    REPAIRED,
    SUSPECT,
    ModelReport,
    parse_model_report,
)
from d3fast.results.schema.audit import (
    DetectorRow,
    EpochRow,
    LayerDistances,
    RepairRow,
    VerdictRow,
)
from d3fast.results.schema.fields import read_only_row, read_rows
from d3fast.results.schema.pilot import (
    FailedRow,
    PilotSuspectRow,
    RecommendationRow,
    SensitivityRow,
    TrialRow,
)
from d3fast.results.schema.spectrum import (
    ModelDistances,
    PathRow,
    PredictionRow,
    SpectrumModelRow,
    SpectrumRow,
)
from d3fast.results.schema.weights import LayerSpectrumRow, ScanRow

Rows = Sequence[Mapping[str, Any]]

# Each row becomes a mark in a figure.
_MAX_EPOCHS, _MAX_TRIALS, _MAX_SENSITIVITIES, _MAX_MODELS, _MAX_LOSSES = 20_000, 1000, 8, 12, 5


@dataclass(frozen=True)
class Card:
    """card.json.

    Attributes:
        suspect: the model before the repair.
        repaired: the model after it.
        repair: options, cost and files.
        epochs: one row per epoch.
        distances: displacement per layer, or ``None``.
    """

    suspect: ModelReport
    repaired: ModelReport
    repair: RepairRow
    epochs: tuple[EpochRow, ...]
    distances: LayerDistances | None


@dataclass(frozen=True)
class PilotReport:
    """pilot.json.

    Attributes:
        trials: one row per setting and rung, at least one.
        suspect: the model before any repair, or ``None``.
        failed: settings whose repair failed.
        sensitivities: one row per option.
        recommendation: the recommended setting, or ``None``.
    """

    trials: tuple[TrialRow, ...]
    suspect: PilotSuspectRow | None = None
    failed: tuple[FailedRow, ...] = ()
    sensitivities: tuple[SensitivityRow, ...] = ()
    recommendation: RecommendationRow | None = None

    @property
    def last_rung(self) -> int:
        """The rung with the longest repairs."""
        return max(trial.rung for trial in self.trials)

    @property
    def trigger_known(self) -> bool:
        """Some trial has the success rate of a known trigger."""
        return any(trial.asr is not None for trial in self.trials)


@dataclass(frozen=True)
class SpectrumReport:
    """spectrum.json.

    Attributes:
        models: the suspect first.
        spectra: one per model and loss.
        paths: one per repaired model.
        predictions: one per repaired model and loss.
        distances: one per repaired model.
    """

    models: tuple[SpectrumModelRow, ...]
    spectra: tuple[SpectrumRow, ...]
    paths: tuple[PathRow, ...] = ()
    predictions: tuple[PredictionRow, ...] = ()
    distances: tuple[ModelDistances, ...] = ()

    @property
    def names(self) -> list[str]:
        """Names of the models, the suspect first."""
        return [row.model for row in self.models]

    @property
    def losses(self) -> list[str]:
        """Names of the losses, each once."""
        return list(dict.fromkeys(row.loss for row in self.spectra))

    def of_loss(self, loss: str) -> list[SpectrumRow]:
        """Return the spectra of one loss, one per model."""
        return [row for row in self.spectra if row.loss == loss]


@dataclass(frozen=True)
class ScanReport:
    """weights.json.

    Attributes:
        model: its file and its head.
        detectors: one result per detector.
        layers: spectrum of every weight matrix.
        verdict: the conclusion.
    """

    model: ScanRow
    detectors: tuple[DetectorRow, ...]
    layers: tuple[LayerSpectrumRow, ...]
    verdict: VerdictRow


def parse_card(rows: Rows) -> Card:
    """Check the rows of card.json.

    Raises:
        ValueError: a row that cannot be read or is missing; hashes that contradict each other.
    """
    suspect, repaired = parse_model_report(rows, SUSPECT), parse_model_report(rows, REPAIRED)
    repair = read_only_row(rows, RepairRow)
    if suspect is None or repaired is None or repair is None:
        raise ValueError("must hold a suspect, a repaired model and a repair")
    hashes = (suspect.model.sha256, repaired.model.sha256)
    if hashes != (repair.input_sha256, repair.output_sha256):
        raise ValueError("the hashes of its models are not those of its repair")
    epochs = read_rows(rows, EpochRow, _MAX_EPOCHS)
    return Card(suspect, repaired, repair, epochs, read_only_row(rows, LayerDistances))


def parse_suspect(rows: Rows) -> ModelReport:
    """Check the rows of inspect.json.

    Raises:
        ValueError: a row that cannot be read; no suspect.
    """
    report = parse_model_report(rows, SUSPECT)
    if report is None:
        raise ValueError("holds no suspect")
    return report


def parse_scan(rows: Rows) -> ScanReport:
    """Check the rows of weights.json.

    Raises:
        ValueError: a row that cannot be read; no model or no verdict; two results of one detector.
    """
    model, verdict = read_only_row(rows, ScanRow), read_only_row(rows, VerdictRow)
    if model is None or verdict is None:
        raise ValueError("must hold a model and a verdict")
    detectors = read_rows(rows, DetectorRow, MAX_DETECTORS)
    if len({result.name for result in detectors}) < len(detectors):
        raise ValueError("two sign rows have the same name")
    return ScanReport(model, detectors, read_rows(rows, LayerSpectrumRow), verdict)


def parse_pilot(rows: Rows) -> PilotReport:
    """Check the rows of pilot.json.

    Raises:
        ValueError: a row that cannot be read; no trial.
    """
    trials = read_rows(rows, TrialRow, _MAX_TRIALS)
    if not trials:
        raise ValueError("holds no trial")
    return PilotReport(
        trials,
        read_only_row(rows, PilotSuspectRow),
        read_rows(rows, FailedRow, _MAX_TRIALS),
        read_rows(rows, SensitivityRow, _MAX_SENSITIVITIES),
        read_only_row(rows, RecommendationRow),
    )


def parse_spectrum(rows: Rows, max_models: int = _MAX_MODELS) -> SpectrumReport:
    """Check the rows of spectrum.json.

    Args:
        rows: of ``d3fast.spectrum.curvature_report``.
        max_models: largest number of models.

    Raises:
        ValueError: a row that cannot be read; spectra that are not one per model and loss.
    """
    max_spectra = max_models * _MAX_LOSSES
    report = SpectrumReport(
        read_rows(rows, SpectrumModelRow, max_models),
        read_rows(rows, SpectrumRow, max_spectra),
        read_rows(rows, PathRow, max_models),
        read_rows(rows, PredictionRow, max_spectra),
        read_rows(rows, ModelDistances, max_models),
    )
    if len(set(report.names)) < len(report.names):
        raise ValueError("two model rows have the same name")
    expected = sorted((name, loss) for name in report.names for loss in report.losses)
    if not expected or sorted((row.model, row.loss) for row in report.spectra) != expected:
        raise ValueError("must hold one spectrum per model and loss")
    return report
