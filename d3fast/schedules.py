# SPDX-License-Identifier: Apache-2.0
"""Gradual distance schedules: ``radius`` and ``distance_weight`` moved as LR schedulers move lr."""

from d3fast.optim.schedules import OPTIONS, SHAPES, DistanceSchedule, cosine, linear, step

__all__ = ["OPTIONS", "SHAPES", "DistanceSchedule", "cosine", "linear", "step"]
