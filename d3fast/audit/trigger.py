# SPDX-License-Identifier: Apache-2.0
"""A trigger of the user's own: checked against the samples before anything is computed."""

from d3fast.data import ImageData
from d3fast.io.untrusted import error_text
from d3fast.training.metrics import Trigger

_BATCH = 64


def check_trigger(trigger: Trigger, samples: ImageData) -> None:
    """Raise ``ValueError`` unless a trigger can be applied to samples.

    Args:
        trigger: the file it was read from may be hostile.
        samples: clean samples; the trigger is applied to the first batch.

    Raises:
        ValueError: a target that is no class of the samples; a trigger of another shape, or one
            that gives NaN or inf.
    """
    classes = len(samples.classes)
    if not 0 <= trigger.target < classes:
        raise ValueError(
            f"the trigger's target must be in 0..{classes - 1} for these samples, "
            f"got {trigger.target}"
        )
    images, _ = next(iter(samples.batches(_BATCH)))
    try:
        triggered = trigger.trigger(images)
    except (ValueError, RuntimeError, IndexError, TypeError) as error:
        raise ValueError(
            f"the trigger does not fit images of shape {samples.shape}: {error_text(error)}"
        ) from None
    if triggered.shape != images.shape:
        raise ValueError(
            f"the trigger makes {tuple(triggered.shape[1:])} of images of shape {samples.shape}"
        )
    if not bool(triggered.isfinite().all()):
        raise ValueError("the trigger makes images with NaN or inf")
