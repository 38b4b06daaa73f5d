# SPDX-License-Identifier: Apache-2.0
"""Five steps for a profiler: ``python -m benchmarks.gpu.probe``."""

import argparse

import torch

from benchmarks.speed.contenders import FREE, SPHERE, ours
from benchmarks.speed.workloads import Workload, draw
from d3fast.runtime.devices import resolve_device


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--elements", type=int, default=25_000_000)
    parser.add_argument("--tensors", type=int, default=1)
    parser.add_argument("--sphere", action="store_true", help="with the norm sphere's projection")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    shapes = ((given.elements // given.tensors,),) * given.tensors
    problem = draw(Workload("probe", shapes), resolve_device(given.device))
    contender = next(c for c in ours(problem) if c.name == (SPHERE if given.sphere else FREE))
    for _ in range(5):
        contender.prepare()
    if problem.device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
