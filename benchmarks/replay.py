# SPDX-License-Identifier: Apache-2.0
"""A clock that shows pytest-benchmark what was measured already.

Contenders are timed in turn, all in one loop; pytest-benchmark runs one test after the other. So
each test hands over the samples of its contender, and this clock is the timer it sees.
"""

from collections.abc import Sequence


class Replay:
    """Called twice per round: the second call is one sample later than the first.

    Example:
        >>> clock = Replay()
        >>> clock.load([3.0, 4.0])
        >>> [clock(), clock(), clock(), clock()]
        [0.0, 3.0, 3.0, 7.0]
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._steps: list[float] = []

    def load(self, samples: Sequence[float]) -> None:
        """Show these durations next, in seconds."""
        self._steps = [step for sample in samples for step in (0.0, sample)]

    def __call__(self) -> float:
        """The time now."""
        if self._steps:
            self._now += self._steps.pop(0)
        return self._now


CLOCK = Replay()
