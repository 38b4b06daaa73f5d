# SPDX-License-Identifier: Apache-2.0
"""Training and evaluation of any classifier: loop, losses, metrics, sharpness-aware gradients."""

from d3fast.training.loop import Epoch, check_weights, fit, mean_loss, plain_gradients

__all__ = ["Epoch", "check_weights", "fit", "mean_loss", "plain_gradients"]
