# SPDX-License-Identifier: Apache-2.0
"""The stages of the GPU check, in the order in which they should first be run.

Every stage takes less than nine minutes, and begins with the build unless that is there. A step
ends at its time limit; the next one runs all the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.gpu import build, counters, resources, suite
from benchmarks.gpu.figures import SKIPPED, Figure, parse_figures
from benchmarks.gpu.tools import Skipped, check_exit, run_module

MOST_SECONDS = 540


@dataclass(frozen=True)
class Step:
    """One step of a stage.

    Attributes:
        name: name in the result file.
        seconds: that it has in any case; up to twice as many where the stage has time left.
        run: takes its time limit and returns figures; raises ``Skipped`` or ``Failed``.
    """

    name: str
    seconds: float
    run: Callable[[float], list[Figure]]


@dataclass(frozen=True)
class Stage:
    """Steps that are run together.

    Attributes:
        number: on the command line.
        title: what it is for.
        steps: the first is the build.
    """

    number: int
    title: str
    steps: Sequence[Step]

    def limit(self, at: int, left: float) -> float:
        """Return the time limit of a step.

        Args:
            at: its position.
            left: seconds until the end of the stage.
        """
        later = sum(step.seconds for step in self.steps[at + 1 :])
        return min(2 * self.steps[at].seconds, left - later)


def worker(module: str, *arguments: str) -> Callable[[float], list[Figure]]:
    """Return a step that runs a module of ``benchmarks.gpu`` and reads the figures it prints."""

    def run(seconds: float) -> list[Figure]:
        done = run_module(f"benchmarks.gpu.{module}", arguments, seconds)
        figures = parse_figures(done.output)
        check_exit(done, f"benchmarks.gpu.{module}", figures)
        for line in done.output.splitlines():
            if line.startswith(SKIPPED):
                raise Skipped(line.removeprefix(SKIPPED))
        return figures

    return run


BUILD = Step("build", 240, build.measure)


def _stage(number: int, title: str, *steps: Step) -> Stage:
    return Stage(number, title, (BUILD, *steps))


STAGES = (
    _stage(
        1,
        "build, copy ceiling, GPU tests",
        Step("ceiling", 40, worker("ceiling")),
        Step("tests", 250, suite.run_tests),
    ),
    _stage(
        2,
        "sanitizer",
        Step("memcheck", 95, partial(suite.sanitize, "memcheck")),
        Step("racecheck", 95, partial(suite.sanitize, "racecheck")),
        Step("synccheck", 95, partial(suite.sanitize, "synccheck")),
    ),
    _stage(
        3,
        "long runs",
        Step("long", 80, worker("endurance", "long")),
        Step("streams", 70, worker("endurance", "streams")),
        Step("replays", 70, worker("endurance", "replays")),
        Step("huge", 70, worker("endurance", "huge")),
    ),
    _stage(4, "times in replays and in eager steps", Step("times", 280, worker("replay"))),
    _stage(
        5,
        "counters and resources of the kernels",
        Step("counters", 120, counters.measure),
        Step("stores kept", 100, counters.keeping),
        Step("resources", 80, resources.measure),
    ),
    _stage(6, "rare steps", Step("rare", 120, worker("rare"))),
    _stage(7, "host time", Step("host", 120, worker("host"))),
    _stage(8, "shards of one rank", Step("shards", 150, worker("sharded"))),
)
