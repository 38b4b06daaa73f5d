# SPDX-License-Identifier: Apache-2.0
"""The protocol of a text detector, the detectors by name, and what is made of their tokens."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from d3fast.audit.detectors.base import DetectorResult, short_name
from d3fast.audit.detectors.text_context import TextContext, TokenTrigger
from d3fast.audit.detectors.token_inversion import TokenInversion
from d3fast.audit.detectors.token_sweep import TokenSweep
from d3fast.results.format import percent
from d3fast.text.vocabulary import token_text


class TextDetector(Protocol):
    """The shape of every text detector: a frozen dataclass of options that needs no arguments."""

    @property
    def name(self) -> str:
        """Short name, for tables and ``TEXT_DETECTORS``."""

    @property
    def title(self) -> str:
        """The quantity that is compared with the limit."""

    @property
    def limit(self) -> float:
        """The detector flags the model if the strength of some class's tokens is above it."""

    def __call__(self, context: TextContext) -> Sequence[TokenTrigger]:
        """Return the strongest tokens found for each class."""


TEXT_DETECTORS: Mapping[str, type[TextDetector]] = MappingProxyType(
    {"token": TokenSweep, "phrase": TokenInversion}
)


def text_result(
    detector: TextDetector,
    found: Sequence[TokenTrigger],
    names: Sequence[str],
    tokenizer: Any | None = None,
) -> DetectorResult:
    """Return the result of a detector whose tokens were found.

    Args:
        detector: the detector.
        found: its tokens, one per class.
        names: of the classes.
        tokenizer: shows tokens as text.
    """
    best = max(found, key=lambda each: each.strength)
    shown = token_text(best.tokens, tokenizer)
    return DetectorResult(
        name=detector.name,
        value=best.strength,
        threshold=detector.limit,
        target=best.target,
        subject=f"{detector.title}: highest for {short_name(names[best.target])}",
        details=(
            f" “{shown}” turns {percent(best.success)} % of the texts of other classes into it."
        ),
    )


def strongest(found: Sequence[Sequence[TokenTrigger]]) -> tuple[TokenTrigger, ...]:
    """Return the strongest tokens of each class over several searches, the shorter of equals.

    Example:
        >>> one = [TokenTrigger(0, (7,), 0.5, 0.9)]
        >>> two = [TokenTrigger(0, (7, 8), 0.6, 0.9)]
        >>> strongest([one, two])[0].tokens
        (7,)
    """
    return tuple(
        max(each, key=lambda trigger: (trigger.strength, -len(trigger.tokens)))
        for each in zip(*found, strict=True)
    )
