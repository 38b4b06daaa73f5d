# SPDX-License-Identifier: Apache-2.0
"""Curvature of the loss and distance of the weights, before and after a repair.

    top_eigenpairs, trace, density          the spectrum of a model's loss
    directional_curvature                   curvature along one direction
    quadratic_prediction                    quadratic expansion at theta_0 against the loss at theta
    loss_path, loss_plane                   the loss between two models and beyond
    distance_profile, DistanceRecorder      distance of each layer from its start
    curvature_report                        all of these, for a suspect and its repairs

All take (model, loss, data). The loss is a mean over the data: clean samples give the clean loss,
``triggered_batches`` the backdoor loss, ``Difference`` their difference. ``Curvature`` is the
Hessian or Gauss-Newton matrix itself; ``eigenpairs``, ``estimate_trace`` and ``estimate_density``
take any symmetric matrix.
"""

from d3fast._renamed import renamed_names
from d3fast.spectrum.curvature import Curvature, Symmetric
from d3fast.spectrum.curvature_report import CurvatureReportConfig, curvature_report
from d3fast.spectrum.density import Density, density, estimate_density
from d3fast.spectrum.directions import (
    DirectionalCurvature,
    QuadraticPrediction,
    directional_curvature,
    quadratic_prediction,
)
from d3fast.spectrum.distances import (
    DistanceRecorder,
    LayerDistance,
    distance_profile,
    total_distance,
)
from d3fast.spectrum.eigenpairs import Eigenpairs, eigenpairs, top_eigenpairs
from d3fast.spectrum.estimates import Estimate
from d3fast.spectrum.paths import LossPath, LossPlane, PathPoint, loss_path, loss_plane
from d3fast.spectrum.samples import Difference, Samples, triggered_batches
from d3fast.spectrum.trace import estimate_trace, trace

__all__ = [
    "Curvature",
    "CurvatureReportConfig",
    "Density",
    "Difference",
    "DirectionalCurvature",
    "DistanceRecorder",
    "Eigenpairs",
    "Estimate",
    "LayerDistance",
    "LossPath",
    "LossPlane",
    "PathPoint",
    "QuadraticPrediction",
    "Samples",
    "Symmetric",
    "curvature_report",
    "density",
    "directional_curvature",
    "distance_profile",
    "eigenpairs",
    "estimate_density",
    "estimate_trace",
    "loss_path",
    "loss_plane",
    "quadratic_prediction",
    "top_eigenpairs",
    "total_distance",
    "trace",
    "triggered_batches",
]

__getattr__ = renamed_names(
    __name__, {"portrait": "curvature_report", "PortraitConfig": "CurvatureReportConfig"}
)
