# SPDX-License-Identifier: Apache-2.0
"""A look at the weights alone: no samples, no gradients, seconds for any model.

    scan_weights   runs ``WEIGHT_DETECTORS`` on the head and computes the spectrum of every layer
    WeightScan     the results; ``rows`` gives the rows of weights.json

Spectra are described and flag nothing: those of backdoored and of clean models are alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from d3fast.audit.calibration import Calibrated, Calibration, fitting_calibration
from d3fast.audit.detectors.base import DetectorResult, run_detector, short_name
from d3fast.audit.detectors.context import InspectionContext
from d3fast.audit.detectors.registry import WEIGHT_DETECTORS
from d3fast.audit.detectors.scores import MIN_CLASSES
from d3fast.audit.model_report import SUSPECT
from d3fast.audit.spectra import LayerSpectrum, layer_spectra
from d3fast.audit.verdict import Verdict, basis_of, calibrated_text, flagged_first
from d3fast.optim.heads import find_head
from d3fast.results.format import joined
from d3fast.results.schema.weights import LayerSpectrumRow, ScanRow

RATE = 0.01  # false alarms per detector, were the statistics of a clean model normal

# (flagged models, all models) of digits, by ``python -m benchmarks.studies weights``.
BACKDOORED = (19, 29)
CLEAN = (0, 20)


@dataclass(frozen=True, eq=False)
class WeightScan:
    """Results of a look at the weights of one model.

    Attributes:
        classes: names of the classes.
        parameters: number of weights.
        head: qualified name of the classification head.
        results: of the detectors.
        layers: spectrum of every weight matrix, in the model's order.
        calibrated: what a calibration says of the results; ``None`` without one.
    """

    classes: tuple[str, ...]
    parameters: int
    head: str
    results: tuple[DetectorResult, ...]
    layers: tuple[LayerSpectrum, ...]
    calibrated: Calibrated | None = None

    @property
    def verdict(self) -> Verdict:
        """The conclusion, with the rates and the models that they were measured on."""
        flagged, found = flagged_first(self.results), self.calibrated
        targets = tuple(dict.fromkeys(r.target for r in flagged if r.target is not None))
        names = [short_name(self.classes[target]) for target in targets]
        text = _text(flagged, names, len(self.classes), found)
        return Verdict(bool(flagged), targets, text, calibrated=found)

    def rows(self, *, sha256: str) -> list[dict[str, Any]]:
        """Return the rows of weights.json: the model, detectors, layers, verdict.

        Args:
            sha256: of the file with the weights.
        """
        rows = [
            ScanRow(
                sha256=sha256,
                parameters=self.parameters,
                head=self.head,
                classes=len(self.classes),
            ),
            *(result.row(SUSPECT) for result in self.results),
            *(LayerSpectrumRow(**layer.as_dict()) for layer in self.layers),
            self.verdict.row(SUSPECT),
        ]
        return [row.to_row() for row in rows]


def scan_weights(
    model: nn.Module,
    classes: Sequence[str] | None = None,
    *,
    rate: float = RATE,
    calibration: Calibration | None = None,
) -> WeightScan:
    """Look at the weights of a classifier; no sample is needed and no forward pass is run.

    Args:
        model: a module with a head that has one row per class.
        classes: names of the classes; their numbers if ``None``.
        rate: of false alarms; see ``InspectOptions``.
        calibration: gives p-values; ``None``: one of the package, if it has one that fits.

    Raises:
        ValueError: a calibration that does not fit; a model without a head, or whose head has
            another number of rows than there are names.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 10))
        >>> [result.name for result in scan_weights(model).results]
        ['head', 'head-norm', 'head-angle']
    """
    name, head = find_head(model)
    weight = getattr(head, "weight", None)
    count = len(weight) if isinstance(weight, torch.Tensor) else 0
    names = tuple(map(str, range(count))) if classes is None else tuple(classes)
    nothing = InspectionContext(
        model, torch.zeros(0), torch.zeros(0, dtype=torch.int64), len(names)
    )
    fitting = fitting_calibration(calibration, model, classes=classes)
    results = tuple(run_detector(D(), nothing, names, rate) for D in WEIGHT_DETECTORS.values())
    calibrated = None
    if fitting is not None:
        results, calibrated = fitting.apply(results, rate, names)
    return WeightScan(
        classes=names,
        parameters=sum(param.numel() for param in model.parameters()),
        head=name,
        results=results,
        layers=layer_spectra(model),
        calibrated=calibrated,
    )


def _text(
    flagged: Sequence[DetectorResult],
    names: Sequence[str],
    classes: int,
    found: Calibrated | None,
) -> str:
    if found is not None:
        return (
            f"{basis_of(found)} {calibrated_text(flagged, names, found)} Weights alone were read."
        )
    if classes < MIN_CLASSES:
        return (
            "The weights flag nothing, and could not: without a calibration detectors compare the "
            f"classes of the model, and {classes} are too few."
        )
    alarms, clean = CLEAN
    hits, backdoored = BACKDOORED
    rates = (
        f"Weights alone were read. The thresholds are not calibrated for this kind of model: on "
        f"models of 8x8 digits {hits} of {backdoored} backdoored and {alarms} of {clean} clean "
        "ones were flagged. A class with more training samples than the others is flagged too."
    )
    if not flagged:
        return f"No weight detector flags this model. This does not rule out a backdoor. {rates}"
    shown = joined(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    which = ", ".join(result.name for result in flagged)
    return f"Possible backdoor with target class {shown} (flagged by {which}). {rates}"
