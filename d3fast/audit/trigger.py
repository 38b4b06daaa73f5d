# SPDX-License-Identifier: Apache-2.0
"""A trigger of the user's own: read from its file, and tried before anything is computed."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from d3fast.attacks import load_attack
from d3fast.attacks.files import read_attack
from d3fast.data import ImageData
from d3fast.hub.samples import Data
from d3fast.io.untrusted import error_text, printable
from d3fast.text import InsertedTokens, TextData
from d3fast.training.metrics import Trigger

# Attacks on texts and the words that they insert: Kurita et al. 2020, Dai et al. 2019.
TEXT_ATTACKS: Mapping[str, str] = MappingProxyType(
    {"rare-token": "cf", "sentence": "I watched this 3D movie"}
)
_BATCH = 64


def load_trigger(path: str | Path) -> Any:
    """Load the trigger of an attack on images or texts; the file may be hostile.

    Raises:
        ValueError: a file that is no saved attack.
        OSError: a file that cannot be opened.
    """
    name, options, _ = read_attack(path)
    if name not in TEXT_ATTACKS:
        return load_attack(path)
    try:
        given = {**options, **{key: tuple(options.get(key, ())) for key in ("tokens", "starts")}}
        if any(type(start) is not bool for start in given["starts"]):
            raise ValueError("starts must be true or false")
        return InsertedTokens(**given)
    except (TypeError, ValueError, OverflowError) as error:
        shown = printable(Path(path).name)
        raise ValueError(f"{shown} is no usable attack: {error_text(error)}") from None


def check_trigger(trigger: Trigger, samples: Data, vocabulary: int | None = None) -> None:
    """Raise ``ValueError`` unless a trigger can be applied to samples.

    Args:
        trigger: the file it was read from may be hostile.
        samples: clean samples; the trigger is applied to the first batch.
        vocabulary: number of tokens that a model of texts knows; not compared if ``None``.

    Raises:
        ValueError: a target that is no class of the samples; a trigger of images for texts or the
            reverse; one of another shape, or one that gives NaN, inf or tokens that do not exist.
    """
    classes = len(samples.classes)
    if not 0 <= trigger.target < classes:
        raise ValueError(
            f"the trigger's target must be in 0..{classes - 1} for these samples, "
            f"got {trigger.target}"
        )
    if isinstance(trigger, InsertedTokens) != isinstance(samples, TextData):
        kinds = ("images", "texts") if isinstance(samples, TextData) else ("texts", "images")
        raise ValueError(f"the trigger is for {kinds[0]}, the samples are {kinds[1]}")
    if isinstance(samples, TextData):
        _check_tokens(trigger, samples, vocabulary)
    else:
        _check_images(trigger, samples)


def _check_tokens(trigger: Any, samples: TextData, vocabulary: int | None) -> None:
    ids, _ = next(iter(samples.batches(_BATCH)))
    most = max(trigger.tokens)
    if vocabulary is not None and most >= vocabulary:
        raise ValueError(f"the trigger has token {most}, the model knows {vocabulary}")
    try:
        trigger.trigger(ids)
    except (ValueError, RuntimeError, IndexError, TypeError) as error:
        raise ValueError(f"the trigger does not fit the texts: {error_text(error)}") from None


def _check_images(trigger: Trigger, samples: ImageData) -> None:
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
