# SPDX-License-Identifier: Apache-2.0
"""Bandwidth of a copy and of an update on random data: ``python -m benchmarks.gpu.ceiling``."""

from collections.abc import Sequence

from benchmarks.gpu.figures import emit
from benchmarks.gpu.problems import worker_arguments
from benchmarks.speed.timing import interleave, quartiles
from benchmarks.speed.yardsticks import IN_MEMORY, Yardsticks
from d3fast.runtime.devices import resolve_device


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the yardsticks over buffers several times larger than any cache."""
    parser = worker_arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args(arguments)
    device = resolve_device(given.device)
    yardsticks = Yardsticks(IN_MEMORY // given.shrink, device)
    samples = interleave(yardsticks.contenders, device, given.seconds)
    for name, moved in yardsticks.moved.items():
        emit(name, moved / quartiles(samples[name])[1] / 1e12, "TB/s")


if __name__ == "__main__":
    main()
