# SPDX-License-Identifier: Apache-2.0
r"""Repair a model: D3 (Wei, Liu, Zha, ICCV 2025, arXiv 2411.09585) as one function.

    min over theta, theta_s in S of   -w * d(theta_s, theta_0) + lambda * hinge(L_clean - epsilon)

A warm start moves the tracked weights theta_s (the head's, by default); then the optimizer pushes
them away from theta_0, while the hinge on a few clean samples keeps the model useful. ``D3Config``
holds every option, ``detoxify`` runs the repair and returns a ``DetoxResult``, ``Checkpointing``
lets an interrupted repair resume.
"""

from d3fast.detox.config import PRESETS, D3Config
from d3fast.detox.resume import Checkpointing, weights_so_far
from d3fast.detox.run import DetoxResult, detoxify
from d3fast.detox.samples import repair_samples, usual_augment
from d3fast.detox.save import save_weights
from d3fast.detox.toml_file import read_config

__all__ = [
    "PRESETS",
    "Checkpointing",
    "D3Config",
    "DetoxResult",
    "detoxify",
    "read_config",
    "repair_samples",
    "save_weights",
    "usual_augment",
    "weights_so_far",
]
