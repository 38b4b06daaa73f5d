# SPDX-License-Identifier: Apache-2.0
"""A few steps over one tensor, for a profiler to look at: ``python -m benchmarks.gpu_probe``."""

import argparse

import torch

from benchmarks.contenders import FREE, ours
from benchmarks.workloads import Workload, draw
from d3fast.devices import resolve_device


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--elements", type=int, default=25_000_000)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    problem = draw(Workload("probe", ((given.elements,),)), resolve_device(given.device))
    free = next(c for c in ours(problem) if c.name == FREE)
    for _ in range(5):
        free.prepare()
    if problem.device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
