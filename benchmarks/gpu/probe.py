# SPDX-License-Identifier: Apache-2.0
"""Five steps for a profiler: ``python -m benchmarks.gpu.probe --workload 1x250M``."""

from collections.abc import Sequence

from benchmarks.gpu.problems import WARMUP, d3, problem, synchronize, worker_arguments
from d3fast.optim.backends import cuda

STEPS = 5


def main(arguments: Sequence[str] | None = None) -> None:
    """Take the steps and print the number of parameters."""
    parser = worker_arguments(__doc__)
    parser.add_argument("--workload", default="1x250M")
    parser.add_argument("--variant", default="free")
    parser.add_argument("--lag", type=int, help="updates before a projection, for an experiment")
    given = parser.parse_args(arguments)
    if given.lag is not None:
        cuda.CudaLauncher.lag = given.lag
    drawn = problem(given.workload, given.device, given.shrink)
    opt = d3(drawn, given.variant)
    for _ in range(STEPS - WARMUP):
        opt.step()
    synchronize(drawn.device)
    print(f"parameters: {sum(t.numel() for t in drawn.thetas)}")


if __name__ == "__main__":
    main()
