# SPDX-License-Identifier: Apache-2.0
"""Training and measuring any classifier: the loop, losses, metrics, sharpness-aware steps."""

from d3fast.training.loop import Epoch, check_weights, fit, mean_loss, plain_gradients

__all__ = ["Epoch", "check_weights", "fit", "mean_loss", "plain_gradients"]
