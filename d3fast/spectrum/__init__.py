# SPDX-License-Identifier: Apache-2.0
"""Why a backdoor stays: curvature and distance, before and after a repair.

    top_eigenpairs, trace, density          the spectrum of a model's loss
    directional_curvature                   along one direction
    quadratic_prediction                    the expansion at theta_0 against the loss at theta
    loss_path, loss_plane                   the loss between two models and beyond
    distance_profile, DistanceRecorder      how far each layer went
    portrait                                all of it, for a suspect and its repairs

All take (model, loss, data): the loss is a mean over all of the data, whose choice makes it the
clean loss, the backdoor loss (``triggered_batches``) or their ``Difference``. The Hessian or the
Gauss-Newton matrix itself is a ``Curvature``; ``eigenpairs``, ``estimate_trace`` and
``estimate_density`` take any symmetric matrix.
"""

from d3fast.spectrum.curvature import Curvature, Symmetric
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
from d3fast.spectrum.portrait import PortraitConfig, portrait
from d3fast.spectrum.samples import Difference, Samples, triggered_batches
from d3fast.spectrum.trace import estimate_trace, trace

__all__ = [
    "Curvature",
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
    "PortraitConfig",
    "QuadraticPrediction",
    "Samples",
    "Symmetric",
    "density",
    "directional_curvature",
    "distance_profile",
    "eigenpairs",
    "estimate_density",
    "estimate_trace",
    "loss_path",
    "loss_plane",
    "portrait",
    "quadratic_prediction",
    "top_eigenpairs",
    "total_distance",
    "trace",
    "triggered_batches",
]
